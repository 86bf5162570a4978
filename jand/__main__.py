"""`python -m jand` is `jand`."""

from jand.cli import main

if __name__ == "__main__":
    main()
