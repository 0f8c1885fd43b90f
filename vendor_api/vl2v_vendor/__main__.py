"""`python -m vl2v_vendor` is `vl2v-vendor`."""

from vl2v_vendor.cli import main

if __name__ == "__main__":
    main()
