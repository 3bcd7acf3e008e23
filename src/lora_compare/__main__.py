"""`python -m lora_compare` is the command `lora-compare`."""

from lora_compare.cli import main

if __name__ == "__main__":
    main(prog_name="lora-compare")
