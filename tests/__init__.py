"""The tests. README.md in this folder says what each folder is for."""
