/* A small pool of threads whose caller never waits for work that nobody has started.
 *
 * A job is `n_tasks` calls of a task; whoever is free takes the next one, the caller too. A worker
 * that the system holds up therefore costs at most the one task it has begun, where a barrier with
 * equal shares would cost a time slice. Workers spin for a moment after a job, then sleep.
 *
 * Needs POSIX threads and GCC's atomics; where they are missing QCY_POOL is 0 and _threads.pyx
 * falls back to OpenMP. */
#ifndef QCY_POOL_H
#define QCY_POOL_H

#include <stddef.h>

typedef void (*qcy_task)(const void *args, ptrdiff_t index, int worker);

#if defined(__GNUC__) && !defined(_WIN32)
#define QCY_POOL 1

#include <limits.h>
#include <pthread.h>
#include <sched.h>

enum { QCY_MAX_WORKERS = 255, QCY_MAX_JOBS = 64, QCY_SPINS = 4000, QCY_STACK = 1 << 19 };

typedef struct {
    qcy_task task;
    const void *args;
    long n_tasks;
    long next;          /* the next task to take */
    int n_joined;       /* workers that have ever joined: each has its own number, from 1 */
    int n_inside;       /* workers that have not left yet */
    int max_helpers;
} qcy_job;

static pthread_mutex_t qcy_pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t qcy_pool_wake = PTHREAD_COND_INITIALIZER;
static qcy_job *qcy_jobs[QCY_MAX_JOBS];
static int qcy_n_workers, qcy_n_asleep;
static long qcy_n_posted;       /* jobs so far: what spinning workers watch */

#if defined(__x86_64__) || defined(__i386__)
#define qcy_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define qcy_pause() __asm__ volatile("yield")
#else
#define qcy_pause() ((void)0)
#endif

static void qcy_work(qcy_job *job, int worker)
{
    for (;;) {
        long i = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (i >= job->n_tasks) return;
        job->task(job->args, i, worker);
    }
}

/* Join a job that has tasks left and room for a helper; the lock is held. */
static qcy_job *qcy_join(int *worker)
{
    int i;
    for (i = 0; i < QCY_MAX_JOBS; i++) {
        qcy_job *job = qcy_jobs[i];
        if (job != NULL && job->n_joined < job->max_helpers
            && __atomic_load_n(&job->next, __ATOMIC_RELAXED) < job->n_tasks) {
            *worker = ++job->n_joined;
            __atomic_fetch_add(&job->n_inside, 1, __ATOMIC_RELAXED);
            return job;
        }
    }
    return NULL;
}

static void *qcy_worker(void *unused)
{
    long seen = 0;
    (void)unused;
    for (;;) {
        int spins, worker;
        qcy_job *job;
        for (spins = 0; spins < QCY_SPINS; spins++) {
            if (__atomic_load_n(&qcy_n_posted, __ATOMIC_ACQUIRE) != seen) break;
            qcy_pause();
        }
        pthread_mutex_lock(&qcy_pool_lock);
        qcy_n_asleep++;
        while (qcy_n_posted == seen) pthread_cond_wait(&qcy_pool_wake, &qcy_pool_lock);
        qcy_n_asleep--;
        seen = qcy_n_posted;
        job = qcy_join(&worker);
        pthread_mutex_unlock(&qcy_pool_lock);
        if (job == NULL) continue;
        qcy_work(job, worker);
        __atomic_fetch_sub(&job->n_inside, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

/* Start workers until there are `wanted`; the lock is held. Fewer will do if the system refuses. */
static void qcy_start_workers(int wanted)
{
    pthread_attr_t attributes;
    if (qcy_n_workers >= wanted || pthread_attr_init(&attributes) != 0) return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, QCY_STACK);
    while (qcy_n_workers < wanted && qcy_n_workers < QCY_MAX_WORKERS) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, qcy_worker, NULL) != 0) break;
        qcy_n_workers++;
    }
    pthread_attr_destroy(&attributes);
}

/* Call task(args, i, worker) for every i below n_tasks, on at most n_threads threads. */
static void qcy_run(qcy_task task, const void *args, long n_tasks, int n_threads)
{
    qcy_job job = {task, args, n_tasks, 0, 0, 0, n_threads - 1};
    int slot = -1, i;
    unsigned spins = 0;
    pthread_mutex_lock(&qcy_pool_lock);
    qcy_start_workers(n_threads - 1);
    for (i = 0; i < QCY_MAX_JOBS && slot < 0; i++)
        if (qcy_jobs[i] == NULL) slot = i;
    if (slot >= 0) {
        qcy_jobs[slot] = &job;
        __atomic_store_n(&qcy_n_posted, qcy_n_posted + 1, __ATOMIC_RELEASE);
        for (i = 0; i < n_threads - 1 && i < qcy_n_asleep; i++) pthread_cond_signal(&qcy_pool_wake);
    }
    pthread_mutex_unlock(&qcy_pool_lock);
    qcy_work(&job, 0);
    if (slot < 0) return;
    pthread_mutex_lock(&qcy_pool_lock);
    qcy_jobs[slot] = NULL;              /* nobody joins any more */
    pthread_mutex_unlock(&qcy_pool_lock);
    while (__atomic_load_n(&job.n_inside, __ATOMIC_ACQUIRE) != 0) {
        if (++spins < QCY_SPINS) qcy_pause();
        else sched_yield();
    }
}

/* In a forked child: the workers are gone, and the lock may have been held by one. */
static void qcy_pool_after_fork(void)
{
    static const pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static const pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
    int i;
    qcy_pool_lock = lock;
    qcy_pool_wake = wake;
    for (i = 0; i < QCY_MAX_JOBS; i++) qcy_jobs[i] = NULL;
    qcy_n_workers = qcy_n_asleep = 0;
}

#else
#define QCY_POOL 0
static void qcy_run(qcy_task task, const void *args, long n_tasks, int n_threads)
{
    (void)task; (void)args; (void)n_tasks; (void)n_threads;
}
static void qcy_pool_after_fork(void) {}
#endif
#endif
