#include "trace.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINE_MOST 512

static atomic_bool wanted;

void trace_open(void)
{
    const char *given = secure_getenv("LNH_PKCS11_DEBUG");
    wanted = given != NULL && given[0] != '\0';
}

void trace(const char *format, ...)
{
    char line[LINE_MOST];
    va_list arguments;
    if (!wanted)
        return;
    int before = errno;
    int length = snprintf(line, sizeof line, "lnh-pkcs11[%ld]: ", (long)getpid());
    va_start(arguments, format);
    int more = vsnprintf(line + length, sizeof line - (size_t)length, format, arguments);
    va_end(arguments);
    if (more >= 0) {
        length += more;
        if (length > LINE_MOST - 1)
            length = LINE_MOST - 1;
        line[length] = '\n';
        /* At once, so that lines of threads and processes stay whole; where it cannot be written, nobody reads it. */
        ssize_t written = write(STDERR_FILENO, line, (size_t)length + 1);
        (void)written;
    }
    errno = before;
}
