"""`python -m pcapdiag` is `pcapdiag`."""

from pcapdiag.cli import main

if __name__ == "__main__":
    main()
