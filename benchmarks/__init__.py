"""Measurements, run by hand from the project's folder; docs/benchmarks.md says what each one shows.

python -m benchmarks.pair     `./lab up` compared with the same lab made by hand
python -m benchmarks.soak     cold bring-ups in a row, and a steady lab afterwards
python -m benchmarks.byhand   the by-hand lab alone
python -m benchmarks.plan     planning 1000 machines
python -m benchmarks.imports  modules that `./lab --help`, version and status import
"""
