"""`python -m repro` is the same as the installed `repro`."""

from repro.cli import app_main

if __name__ == "__main__":
    app_main()
