# SPDX-License-Identifier: Apache-2.0
# pool_peers.py - what Python's pools do in the cases of pool_bench: prints one number, tasks/s or bytes/s.
# usage: pool_peers.py cf|mp|mpi submit|echo WORKERS SECONDS
import sys
import time


def noop(x):
    return x


def echo(b):
    return b


def executor(kind, workers):
    if kind == 'cf':
        from concurrent.futures import ProcessPoolExecutor
        return ProcessPoolExecutor(workers)
    from mpi4py.futures import MPIPoolExecutor
    return MPIPoolExecutor(workers)


def rate(submit, arg, window, seconds):
    """Tasks a second, one by one, with at most `window` under way."""
    under_way = []
    done = 0
    begin = time.monotonic()
    end = begin + seconds
    while time.monotonic() < end:
        while len(under_way) < window:
            under_way.append(submit(arg))
        for get in under_way:
            get()
        done += len(under_way)
        under_way.clear()
    return done / (time.monotonic() - begin)


def main():
    kind, case, workers, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    fn, arg, window = (noop, 1, 500) if case == 'submit' else (echo, bytes(1 << 20), 2)
    if kind == 'mp':
        import multiprocessing
        with multiprocessing.Pool(workers) as p:
            p.apply(noop, (1,))
            value = rate(lambda a: p.apply_async(fn, (a,)).get, arg, window, seconds)
    else:
        with executor(kind, workers) as e:
            e.submit(noop, 1).result()
            value = rate(lambda a: e.submit(fn, a).result, arg, window, seconds)
    print(value if case == 'submit' else value * (1 << 20))


if __name__ == '__main__':
    main()
