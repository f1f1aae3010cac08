"""``python -m hoplab``: what the script ``lab`` runs."""

from hoplab.cli import main

if __name__ == "__main__":
    main()
