"""How far work is and how long it takes: counted where it is done, told to who waits."""
