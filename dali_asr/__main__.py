"""`python -m dali_asr` is `dali-asr`."""

from dali_asr.cli import main

if __name__ == "__main__":
    main()
