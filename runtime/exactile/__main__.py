"""``python -m exactile``: the command line."""

from exactile.cli.main import run

if __name__ == "__main__":
    run()
