"""`python -m plume`, which is also how torchrun and accelerate launch start it."""

from plume.cli.main import main

if __name__ == "__main__":
    main()
