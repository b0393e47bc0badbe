"""`deltaw train`, from a clone: python train.py --help explains it."""

from deltaw.entry.train import main

if __name__ == "__main__":
    main()
