"""`deltaw analyze`, from a clone: python analyze.py --help explains it."""

from deltaw.entry.analyze import main

if __name__ == "__main__":
    main()
