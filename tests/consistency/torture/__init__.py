"""The torture test: several servers, many clients, faults at random, and a judge who knows when each key was off.

    make torture ARGS='--seconds 600 --seed 7 --replicas 3'

run.py          the whole of it, from the first process to the table
cluster.py      PostgreSQL, and replicas that each reach it through a fault proxy of their own
client.py       a process that verifies keys in a loop, at every replica
cached_client.py  processes with a cache of their own, each of which watches one replica
administrator.py  tasks that create keys and switch them off and on, by RPC and by hand-written SQL
faults.py       what is done to the cluster meanwhile
judge.py        which decisions were wrong
report.py       what comes out

All times are seconds of CLOCK_MONOTONIC, which every process of a machine shares.
"""
