#include "wire.h"

#include <stdlib.h>
#include <string.h>

void writer_open(struct writer *writer)
{
    writer->data = writer->inlined;
    writer->length = 0;
    writer->room = sizeof writer->inlined;
    writer->failed = false;
}

void writer_close(struct writer *writer)
{
    explicit_bzero(writer->data, writer->length);
    if (writer->data != writer->inlined)
        free(writer->data);
    writer_open(writer);
}

unsigned char *writer_extend(struct writer *writer, size_t count)
{
    if (writer->failed)
        return NULL;
    if (count > writer->room - writer->length) {
        if (count > SIZE_MAX / 2 - writer->length) {
            writer->failed = true;
            return NULL;
        }
        size_t needed = writer->length + count;
        size_t room = writer->room > SIZE_MAX / 4 ? needed : writer->room * 2;
        if (room < needed)
            room = needed;
        /* Not realloc: what it leaves behind would not be wiped. */
        unsigned char *larger = malloc(room);
        if (larger == NULL) {
            writer->failed = true;
            return NULL;
        }
        memcpy(larger, writer->data, writer->length);
        explicit_bzero(writer->data, writer->length);
        if (writer->data != writer->inlined)
            free(writer->data);
        writer->data = larger;
        writer->room = room;
    }
    unsigned char *place = writer->data + writer->length;
    writer->length += count;
    return place;
}

static void write_number(struct writer *writer, uint64_t value, size_t size)
{
    unsigned char *place = writer_extend(writer, size);
    if (place == NULL)
        return;
    for (size_t i = 0; i < size; i++)
        place[i] = (unsigned char)(value >> (8 * (size - 1 - i)));
}

void write_u8(struct writer *writer, uint8_t value)
{
    write_number(writer, value, 1);
}

void write_u32(struct writer *writer, uint32_t value)
{
    write_number(writer, value, 4);
}

void write_u64(struct writer *writer, uint64_t value)
{
    write_number(writer, value, 8);
}

void write_bytes(struct writer *writer, const void *bytes, size_t count)
{
    unsigned char *place = writer_extend(writer, count);
    if (place != NULL && count > 0)
        memcpy(place, bytes, count);
}

void reader_open(struct reader *reader, const unsigned char *data, size_t length)
{
    reader->data = data;
    reader->length = length;
    reader->at = 0;
    reader->failed = false;
}

const unsigned char *read_bytes(struct reader *reader, size_t count)
{
    if (reader->failed || count > reader->length - reader->at) {
        reader->failed = true;
        return NULL;
    }
    const unsigned char *place = reader->data + reader->at;
    reader->at += count;
    return place;
}

static uint64_t read_number(struct reader *reader, size_t size)
{
    const unsigned char *place = read_bytes(reader, size);
    uint64_t value = 0;
    for (size_t i = 0; place != NULL && i < size; i++)
        value = value << 8 | place[i];
    return value;
}

uint8_t read_u8(struct reader *reader)
{
    return (uint8_t)read_number(reader, 1);
}

uint32_t read_u32(struct reader *reader)
{
    return (uint32_t)read_number(reader, 4);
}

uint64_t read_u64(struct reader *reader)
{
    return read_number(reader, 8);
}

bool reader_at_end(const struct reader *reader)
{
    return !reader->failed && reader->at == reader->length;
}
