"""What every test may ask for: each build of the kernels, and hypothesis without a deadline."""

import pytest
from hypothesis import HealthCheck, settings

from qcy import _kernels

# No deadline: threads on a busy machine are late now and then, and that is no failure.
# Function-scoped fixtures: `kernels` is the same for every example of a test, as it should be.
settings.register_profile(
    "qcy",
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Fewer examples, for builds that run many times slower: --hypothesis-profile=quick.
settings.register_profile("quick", settings.get_profile("qcy"), max_examples=8)
settings.load_profile("qcy")


@pytest.fixture(params=_kernels.usable_variants())
def kernels(request, monkeypatch):
    """Each build of the kernels that this machine can run, in force while the test runs."""
    chosen = _kernels.load(request.param)
    monkeypatch.setattr(_kernels, "active", chosen)
    return chosen
