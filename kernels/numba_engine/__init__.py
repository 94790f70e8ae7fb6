"""The backend that Numba compiles. Read it from numba_backend.py, and the forward pass from numba_forward.py."""
