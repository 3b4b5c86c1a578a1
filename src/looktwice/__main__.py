"""`python -m looktwice`: the same as the command."""

from looktwice.cli.main import main

if __name__ == "__main__":
    main()
