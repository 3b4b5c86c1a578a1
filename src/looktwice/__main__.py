"""`looktwice`, and `python -m looktwice`. It imports the command line only after Ctrl-C is taken care of."""

from looktwice.cli.interrupt import until_a_verb_begins


def main() -> None:
    """Run the command."""
    until_a_verb_begins()
    from looktwice.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
