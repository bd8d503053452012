/*
 * Parameters of mechanisms and of messages: the structs that C has, and the fields of them that travel.
 *
 * One marshaller for all of them, by the layouts of layouts.h. A struct is known by its mechanism and its size; what
 * has no layout travels as the bytes that it is. Members are copied out, since an application's struct may be unaligned.
 */
#include "call.h"

#include <stddef.h>
#include <string.h>

#include "layouts.h"

static CK_ULONG ulong_of(const unsigned char *base, size_t offset)
{
    CK_ULONG value;
    memcpy(&value, base + offset, sizeof value);
    return value;
}

static unsigned char *pointer_of(const unsigned char *base, size_t offset)
{
    unsigned char *value;
    memcpy(&value, base + offset, sizeof value);
    return value;
}

/* Say how many bytes a field points to. */
static CK_ULONG bytes_of(const struct lnh_field *field, const unsigned char *base)
{
    CK_ULONG length = field->kind == LNH_FIELD_FIXED ? field->size : ulong_of(base, field->length);
    if (field->kind == LNH_FIELD_BITS)
        length = length / 8 + (length % 8 != 0);
    return length;
}

static void write_pointed(struct call *call, const unsigned char *bytes, CK_ULONG length)
{
    if (bytes == NULL ? length > 0 : length > LENGTH_MOST) {
        call_fail(call, CKR_MECHANISM_PARAM_INVALID);
    } else if (bytes == NULL) {
        write_u32(&call->request, NULL_LENGTH);
    } else {
        write_u32(&call->request, (uint32_t)length);
        write_bytes(&call->request, bytes, length);
    }
}

static void write_struct(struct call *call, const struct lnh_layout *layout, const unsigned char *base, int depth);

static void write_array(struct call *call, const struct lnh_field *field, const unsigned char *base, int depth)
{
    const struct lnh_layout *layout = &lnh_layouts[field->layout];
    const unsigned char *elements = pointer_of(base, field->offset);
    CK_ULONG count = ulong_of(base, field->length);
    if (count > LENGTH_MOST || (elements == NULL && count > 0)) {
        call_fail(call, CKR_MECHANISM_PARAM_INVALID);
        return;
    }
    write_u32(&call->request, (uint32_t)count);
    for (CK_ULONG i = 0; i < count && call->rv == CKR_OK && !call->request.failed; i++)
        write_struct(call, layout, elements + i * layout->size, depth + 1);
}

static void write_struct(struct call *call, const struct lnh_layout *layout, const unsigned char *base, int depth)
{
    if (depth >= LNH_DEPTH) {
        call_fail(call, CKR_MECHANISM_PARAM_INVALID);
        return;
    }
    for (size_t i = 0; i < layout->fields && call->rv == CKR_OK; i++) {
        const struct lnh_field *field = &lnh_fields[layout->first + i];
        const unsigned char *pointed;
        switch (field->kind) {
        case LNH_FIELD_ULONG:
            write_u64(&call->request, ulong_of(base, field->offset));
            break;
        case LNH_FIELD_BOOL:
            write_u8(&call->request, base[field->offset]);
            break;
        case LNH_FIELD_INLINE:
            write_pointed(call, base + field->offset, field->size);
            break;
        case LNH_FIELD_BYTES:
        case LNH_FIELD_BITS:
        case LNH_FIELD_FIXED:
            pointed = pointer_of(base, field->offset);
            write_pointed(call, pointed, pointed == NULL && field->kind == LNH_FIELD_FIXED ? 0 : bytes_of(field, base));
            break;
        case LNH_FIELD_STRUCT:
            pointed = pointer_of(base, field->offset);
            write_u8(&call->request, pointed != NULL);
            if (pointed != NULL)
                write_struct(call, &lnh_layouts[field->layout], pointed, depth + 1);
            break;
        case LNH_FIELD_ARRAY:
            write_array(call, field, base, depth);
            break;
        }
    }
}

/* Write a struct with the number of its layout before it, or, where no layout has its size, as bytes. */
static void write_parameters(struct call *call, int number, const struct lnh_layout *layout, const void *parameter,
                             CK_ULONG length)
{
    if (parameter == NULL && length > 0) {
        call_fail(call, CKR_ARGUMENTS_BAD);
    } else if (parameter == NULL || length == 0) {
        write_u8(&call->request, 0);
    } else if (layout != NULL) {
        write_u8(&call->request, (uint8_t)number);
        write_struct(call, layout, parameter, 0);
    } else if (length > LENGTH_MOST) {
        call_fail(call, CKR_MECHANISM_PARAM_INVALID);
    } else {
        write_u8(&call->request, LNH_RAW);
        write_u32(&call->request, (uint32_t)length);
        write_bytes(&call->request, parameter, length);
    }
}

void put_mechanism(struct call *call, const CK_MECHANISM *mechanism)
{
    const struct lnh_layout *layout = NULL;
    int number = 0;
    if (!call_writes(call, "M"))
        return;
    if (mechanism == NULL) {
        write_u32(&call->request, LNH_NO_MECHANISM);
        return;
    }
    if (mechanism->mechanism >= LNH_NO_MECHANISM) {
        call_fail(call, CKR_MECHANISM_INVALID);
        return;
    }
    for (size_t i = 0; i < sizeof lnh_mechanisms / sizeof lnh_mechanisms[0] && layout == NULL; i++) {
        if (lnh_mechanisms[i].type != mechanism->mechanism)
            continue;
        number++;
        if (lnh_layouts[lnh_mechanisms[i].layout].size == mechanism->ulParameterLen)
            layout = &lnh_layouts[lnh_mechanisms[i].layout];
    }
    write_u32(&call->request, (uint32_t)mechanism->mechanism);
    write_parameters(call, number, layout, mechanism->pParameter, mechanism->ulParameterLen);
}

/* Find the layout of a message's parameters by their size; 0 where none has it. */
static int message_layout(CK_ULONG length)
{
    for (size_t i = 0; i < sizeof lnh_message_layouts / sizeof lnh_message_layouts[0]; i++) {
        if (lnh_layouts[lnh_message_layouts[i]].size == length)
            return (int)i + 1;
    }
    return 0;
}

void put_message(struct call *call, const void *parameter, CK_ULONG length)
{
    int number = message_layout(length);
    const struct lnh_layout *layout = number == 0 ? NULL : &lnh_layouts[lnh_message_layouts[number - 1]];
    if (call_writes(call, "P"))
        write_parameters(call, number, layout, parameter, length);
}

/* Read one field of a message's parameters, and write it where the application awaits it: an IV, a tag. */
static void read_field(struct call *call, const struct lnh_field *field, unsigned char *base)
{
    struct reader *reply = &call->reader;
    switch (field->kind) {
    case LNH_FIELD_ULONG:
        read_u64(reply);
        break;
    case LNH_FIELD_BOOL:
        read_u8(reply);
        break;
    case LNH_FIELD_BYTES:
    case LNH_FIELD_BITS:
    case LNH_FIELD_FIXED: {
        CK_ULONG length = read_u32(reply);
        if (length == NULL_LENGTH)
            break;
        const unsigned char *found = read_bytes(reply, length);
        unsigned char *pointed = pointer_of(base, field->offset);
        if (found != NULL && pointed != NULL && field->comes_back && length == bytes_of(field, base) && length > 0)
            memcpy(pointed, found, length);
        break;
    }
    case LNH_FIELD_INLINE:
    case LNH_FIELD_STRUCT:
    case LNH_FIELD_ARRAY:
        reply->failed = true; /* no message has them */
        break;
    }
}

void get_message(struct call *call, void *parameter, CK_ULONG length)
{
    if (!call_reads(call, "P"))
        return;
    int number = read_u8(&call->reader);
    if (number == LNH_RAW) {
        read_bytes(&call->reader, read_u32(&call->reader));
    } else if (number != 0) {
        if (parameter == NULL || number != message_layout(length)) {
            call_fail(call, CKR_DEVICE_ERROR);
            return;
        }
        const struct lnh_layout *layout = &lnh_layouts[lnh_message_layouts[number - 1]];
        for (size_t i = 0; i < layout->fields; i++)
            read_field(call, &lnh_fields[layout->first + i], parameter);
    }
    if (call->reader.failed)
        call_fail(call, CKR_DEVICE_ERROR);
}
