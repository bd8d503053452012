/* Says on standard error what happens, where LNH_PKCS11_DEBUG asks for it: an application shows a number at best. */
#ifndef LNH_PKCS11_TRACE_H
#define LNH_PKCS11_TRACE_H

/* Read the variable; not in a program with rights that its caller lacks. */
void trace_open(void);
/* Write a line. No PIN, and nothing of what is signed or encrypted, is ever among its arguments. */
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
