"""Calls that are checked once and run often: every primitive that is one kernel has `bind`."""

from functools import wraps

from qcy._step import BoundCall, Place, check_apart


def _record(plan, recorder, args, kwargs):
    """Leave a call's step with the recorder of its operands, and return the place of the result."""
    if kwargs.get("out") is None:
        kwargs = {**kwargs, "out": recorder}
    step, out, finish = plan(*args, **kwargs)
    if finish is not None:
        raise TypeError(f"{plan.__name__} cannot be recorded: it takes more than one kernel")
    recorder.add(step)
    return out


def bindable(plan, n_read=1):
    """Turn a plan of a call into the call, with `bind` beside it.

    The first `n_read` operands are read when the call runs; others are constants of the call.

    A plan checks its arguments and returns ``(step, out, finish)``: the kernel's step, the array
    that it writes, and a function of the number of
    threads that makes the result of it, or None if `out` is the result. Its
    `n_threads` is for the call, not for the plan.
    """

    @wraps(plan)
    def call(*args, **kwargs):
        for x in args[:n_read]:
            if type(x) is Place:
                return _record(plan, x.recorder, args, kwargs)
        if kwargs.get("out") is not None:
            check_apart(kwargs["out"], args, kwargs)
        step, out, finish = plan(*args, **kwargs)
        step.run(kwargs.get("n_threads"))
        return out if finish is None else finish(kwargs.get("n_threads"))

    def bind(*args, **kwargs):
        if kwargs.get("out") is not None:
            check_apart(kwargs["out"], args, kwargs)
        step, out, finish = plan(*args, **kwargs)
        if finish is not None:
            raise ValueError(
                f"{plan.__name__} can be bound only where one kernel does it all: channels last, "
                "rounding to nearest even"
            )
        for i, arg in enumerate(args[:n_read]):
            if not any(arg is owner for owner in step.owners):
                given = f"{arg.dtype} of shape {arg.shape}" if hasattr(arg, "dtype") else repr(arg)
                raise ValueError(
                    f"operand {i} of a bound call must be read where it lies: a C-ordered array "
                    f"of the dtype that the kernel takes; got {given}"
                )
        return BoundCall(step, out, kwargs.get("n_threads"))

    bind.__doc__ = f"""Check a call of `{plan.__name__}` once, and return it ready to run often.

    Takes the same arguments. The inputs are read where they lie when the call runs, so they must be
    C-ordered arrays of the dtype that the kernel takes; weights and tables are taken as they are.

    Returns
    -------
    BoundCall
        Call it without arguments; its `out` is the result.
    """
    call.bind = bind
    return call
