"""What tests of several folders share; README.md of the folder above has one line for each module."""
