# The two commands of the README are `make book` and `make test`. ARGS="..." is passed on to what a target runs.

python = .venv/bin/python
chapters = chapters/*.ipynb chapters/solutions/*.ipynb
nbval = --nbval --nbval-current-env --nbval-sanitize-with=chapters/sanitize.cfg --nbval-cell-timeout=600

.PHONY: book test lint chapters codegen mutants bench environment

# JupyterLab on book/, a working copy of the chapters.
book: environment
	@$(python) chapters/open_book.py $(ARGS)

# Everything, as on a machine without a GPU. One thread per process: two processes of two threads each are slower.
# A file goes to one process, because what its tests share, such as compiled kernels, takes minutes to make.
test: export CUDA_VISIBLE_DEVICES =
test: export OMP_NUM_THREADS = 1
test: export MKL_NUM_THREADS = 1
test: lint
	$(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 $(ARGS)
	$(python) -m pytest $(nbval) -n 2 --dist loadscope --durations=15 $(chapters)

lint: environment
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

# Execute the chapters anew from their sources. ARGS="02 03" chooses chapters.
chapters: environment
	$(python) chapters/build.py $(ARGS)

# Compile the kernels for GPUs that need not be there: registers, spills, accesses and atomics of each, as a table.
codegen: environment
	$(python) kernels/benchmarks/codegen.py $(ARGS)

# Plant faults in the kernels, one at a time, and see that the tests notice each.
mutants: environment
	$(python) tests/kernels/run_mutants.py $(ARGS)

bench: environment
	$(python) kernels/benchmarks/cpu_path.py $(ARGS)

environment:
	@.ci/environment
