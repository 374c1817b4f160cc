/* The C library's headers for 64 bits ask for this file when compiled for 32. */
