// Libraries that lack something, for tests of programs that load them. With NEEDED the library has what the other one needs,
// and none of the functions of the interface.
#ifdef NEEDED
int nowhere() { return 1; }
#else
int nowhere();
int something() { return nowhere(); }
#endif
