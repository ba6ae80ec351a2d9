"""A pool of threads, written in LLVM's assembly on top of the C library's threads.

A loop opens a gate. Workers that see it enter, take small ranges of turns from a shared counter,
and leave when none is left; so does the caller, who then closes the gate and waits for those inside
only: a worker that the system has not run meanwhile is not missed. Nothing of it runs Python.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache

from llvmlite import binding

from covta.compiler.llvm.engine import Engine
from covta.compiler.llvm.target import native

__all__ = ["MAX_THREADS", "ThreadPool", "thread_pool"]

MAX_THREADS = 256

POOL_BYTES = 576
"""Room for the structure, with a mutex and two conditions of at most 64 bytes."""

SPINS = 4000
"""Looks at the counters before a thread goes to sleep."""

PARTS_PER_THREAD = 4
"""Ranges that the turns are cut into, so that a thread that is held up does less."""

# Byte offsets: run 0, threads 8, mutex 64, work 128, done 192 (conditions), body 264, context 272,
# turns 280, chunk 288, next 320, gate 384. The gate counts loops from bit 32 on, is open where bit
# 31 is set, and holds the number of workers inside below.
OPEN = 1 << 31
COUNT = OPEN - 1
ASSEMBLY = f"""
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
@@PAUSE@@

define internal void @take(ptr %pool) {{
entry:
  %body.at = getelementptr i8, ptr %pool, i64 264
  %body = load ptr, ptr %body.at
  %context.at = getelementptr i8, ptr %pool, i64 272
  %context = load ptr, ptr %context.at
  %turns.at = getelementptr i8, ptr %pool, i64 280
  %turns = load i64, ptr %turns.at
  %chunk.at = getelementptr i8, ptr %pool, i64 288
  %chunk = load i64, ptr %chunk.at
  %next = getelementptr i8, ptr %pool, i64 320
  br label %again
again:
  %begin = atomicrmw add ptr %next, i64 %chunk monotonic
  %some = icmp slt i64 %begin, %turns
  br i1 %some, label %do, label %out
do:
  %far = add i64 %begin, %chunk
  %over = icmp sgt i64 %far, %turns
  %end = select i1 %over, i64 %turns, i64 %far
  call void %body(ptr %context, i64 %begin, i64 %end)
  br label %again
out:
  ret void
}}

define internal i1 @inviting(i64 %gate, i64 %seen) alwaysinline {{
  %bit = and i64 %gate, {OPEN}
  %open = icmp ne i64 %bit, 0
  %loop = lshr i64 %gate, 32
  %fresh = icmp ne i64 %loop, %seen
  %both = and i1 %open, %fresh
  ret i1 %both
}}

define internal ptr @worker(ptr %pool) {{
entry:
  %mutex = getelementptr i8, ptr %pool, i64 64
  %work = getelementptr i8, ptr %pool, i64 128
  %done = getelementptr i8, ptr %pool, i64 192
  %gate = getelementptr i8, ptr %pool, i64 384
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %seen, %missed ], [ %now, %leave ], [ %now, %tell ]
  br label %spin
spin:
  %k = phi i64 [ 0, %idle ], [ %k1, %spinning ]
  %look = load atomic i64, ptr %gate acquire, align 8
  %fresh = call i1 @inviting(i64 %look, i64 %seen)
  br i1 %fresh, label %enter, label %spinning
spinning:
  @@CALL@@
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k1, {SPINS}
  br i1 %more, label %spin, label %sleep
sleep:
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %check
check:
  %value = load atomic i64, ptr %gate acquire, align 8
  %ready = call i1 @inviting(i64 %value, i64 %seen)
  br i1 %ready, label %awake, label %wait
wait:
  call i32 @pthread_cond_wait(ptr %work, ptr %mutex)
  br label %check
awake:
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %enter
enter:
  %old = phi i64 [ %look, %spin ], [ %value, %awake ]
  %inside = add i64 %old, 1
  %swap = cmpxchg ptr %gate, i64 %old, i64 %inside acq_rel monotonic
  %in = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %in, label %start, label %missed
missed:
  br label %idle
start:
  %now = lshr i64 %old, 32
  call void @take(ptr %pool)
  %before = atomicrmw sub ptr %gate, i64 1 acq_rel
  %state = and i64 %before, {OPEN | COUNT}
  %last = icmp eq i64 %state, 1
  br i1 %last, label %tell, label %leave
leave:
  br label %idle
tell:
  call i32 @pthread_mutex_lock(ptr %mutex)
  call i32 @pthread_cond_broadcast(ptr %done)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %idle
}}

define void @run(ptr %pool, ptr %body, ptr %context, i64 %turns) {{
entry:
  %threads.at = getelementptr i8, ptr %pool, i64 8
  %threads = load i64, ptr %threads.at
  %one = icmp sle i64 %threads, 1
  %few = icmp sle i64 %turns, 1
  %alone = or i1 %one, %few
  br i1 %alone, label %self, label %share
self:
  call void %body(ptr %context, i64 0, i64 %turns)
  ret void
share:
  %mutex = getelementptr i8, ptr %pool, i64 64
  %work = getelementptr i8, ptr %pool, i64 128
  %done = getelementptr i8, ptr %pool, i64 192
  %gate = getelementptr i8, ptr %pool, i64 384
  %body.at = getelementptr i8, ptr %pool, i64 264
  store ptr %body, ptr %body.at
  %context.at = getelementptr i8, ptr %pool, i64 272
  store ptr %context, ptr %context.at
  %turns.at = getelementptr i8, ptr %pool, i64 280
  store i64 %turns, ptr %turns.at
  %parts = mul i64 %threads, {PARTS_PER_THREAD}
  %part = sdiv i64 %turns, %parts
  %tiny = icmp slt i64 %part, 1
  %chunk = select i1 %tiny, i64 1, i64 %part
  %chunk.at = getelementptr i8, ptr %pool, i64 288
  store i64 %chunk, ptr %chunk.at
  %next = getelementptr i8, ptr %pool, i64 320
  store atomic i64 0, ptr %next monotonic, align 8
  ; The gate is shut and nobody is inside: only its count of loops is there.
  %shut = load atomic i64, ptr %gate monotonic, align 8
  %counted = add i64 %shut, {1 << 32}
  %open = or i64 %counted, {OPEN}
  call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i64 %open, ptr %gate release, align 8
  call i32 @pthread_cond_broadcast(ptr %work)
  call i32 @pthread_mutex_unlock(ptr %mutex)
  call void @take(ptr %pool)
  atomicrmw and ptr %gate, i64 {~OPEN} acq_rel
  br label %spin
spin:
  %k = phi i64 [ 0, %share ], [ %k1, %spinning ]
  %left = load atomic i64, ptr %gate acquire, align 8
  %count = and i64 %left, {COUNT}
  %over = icmp eq i64 %count, 0
  br i1 %over, label %out, label %spinning
spinning:
  @@CALL@@
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k1, {SPINS}
  br i1 %more, label %spin, label %sleep
sleep:
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %check
check:
  %still = load atomic i64, ptr %gate acquire, align 8
  %rest = and i64 %still, {COUNT}
  %ready = icmp eq i64 %rest, 0
  br i1 %ready, label %awake, label %wait
wait:
  call i32 @pthread_cond_wait(ptr %done, ptr %mutex)
  br label %check
awake:
  call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %out
out:
  ret void
}}

define i32 @start(ptr %pool, i64 %threads) {{
entry:
  store ptr @run, ptr %pool
  %threads.at = getelementptr i8, ptr %pool, i64 8
  store i64 %threads, ptr %threads.at
  %handle = alloca i64
  br label %next
next:
  %k = phi i64 [ 1, %entry ], [ %k1, %made ]
  %some = icmp slt i64 %k, %threads
  br i1 %some, label %make, label %out
make:
  %state = call i32 @pthread_create(ptr %handle, ptr null, ptr @worker, ptr %pool)
  %bad = icmp ne i32 %state, 0
  br i1 %bad, label %fail, label %made
made:
  %thread = load i64, ptr %handle
  call i32 @pthread_detach(i64 %thread)
  %k1 = add i64 %k, 1
  br label %next
fail:
  store i64 %k, ptr %threads.at
  ret i32 %state
out:
  ret i32 0
}}
"""
# A mutex and conditions of zeros are what the C library's static initialisers make.


@cache
def _engine() -> Engine:
    x86 = native().triple.startswith("x86_64")
    text = ASSEMBLY.replace("@@PAUSE@@", "declare void @llvm.x86.sse2.pause()" if x86 else "")
    text = text.replace("@@CALL@@", "call void @llvm.x86.sse2.pause()" if x86 else "")
    return Engine(binding.parse_assembly(text), native(), opt=2)


class ThreadPool:
    """Threads that share the turns of ``parallel`` loops; they live as long as the process.

    Parameters
    ----------
    threads : int
        The caller's own included.
    """

    def __init__(self, threads: int) -> None:
        assert 1 <= threads <= MAX_THREADS
        self.threads = threads
        self.lock = threading.Lock()
        """Held while the pool works: it does one loop at a time."""
        room = ctypes.create_string_buffer(POOL_BYTES + 64)
        self._room = room
        self.address = (ctypes.addressof(room) + 63) & -64
        start = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)(
            _engine().address("start")
        )
        state = start(self.address, threads)
        if state:
            raise OSError(state, f"only some of {threads} threads could be started")


_POOLS: dict[int, ThreadPool] = {}
_POOLS_LOCK = threading.Lock()


def thread_pool(threads: int) -> ThreadPool:
    """The process's pool of so many threads."""
    with _POOLS_LOCK:
        if threads not in _POOLS:
            _POOLS[threads] = ThreadPool(threads)
        return _POOLS[threads]


def _forget() -> None:
    """A forked process has none of the threads."""
    _POOLS.clear()


try:
    from os import register_at_fork
except ImportError:
    pass
else:
    register_at_fork(after_in_child=_forget)
