/*
 * Write and read the fields of a frame: big-endian, each read checked against what is there.
 *
 * Errors stick: a writer that ran out of memory and a reader that met what does not fit stay so, and what is read
 * from then on is zero. So a caller reads all fields and asks once.
 */
#ifndef LNH_PKCS11_WIRE_H
#define LNH_PKCS11_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WRITER_INLINE 1024 /* bytes that need no memory of their own: most requests */

struct writer {
    unsigned char *data;
    size_t length;
    size_t room;
    bool failed;
    unsigned char inlined[WRITER_INLINE];
};

struct reader {
    const unsigned char *data;
    size_t length;
    size_t at;
    bool failed;
};

void writer_open(struct writer *writer);
/* Wipe what was written, PINs and plaintext among it, and give the memory back. */
void writer_close(struct writer *writer);
/* Give room for `count` bytes more, which the caller fills; NULL where there is no memory. */
unsigned char *writer_extend(struct writer *writer, size_t count);

void write_u8(struct writer *writer, uint8_t value);
void write_u32(struct writer *writer, uint32_t value);
void write_u64(struct writer *writer, uint64_t value);
void write_bytes(struct writer *writer, const void *bytes, size_t count);

void reader_open(struct reader *reader, const unsigned char *data, size_t length);
uint8_t read_u8(struct reader *reader);
uint32_t read_u32(struct reader *reader);
uint64_t read_u64(struct reader *reader);
/* Point at the next `count` bytes; NULL where there are not so many. */
const unsigned char *read_bytes(struct reader *reader, size_t count);
bool reader_at_end(const struct reader *reader);

#endif
