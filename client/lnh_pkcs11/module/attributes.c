/*
 * Templates: attributes that are set, the room for those that are asked for, and their values.
 *
 * A value travels by the kind of its attribute (layouts.h), templates within templates among them, to a depth.
 */
#include "call.h"

#include <stddef.h>
#include <string.h>

#include "layouts.h"

#define TYPE_MOST 0xffffffffUL /* what is beyond has no meaning, and travels as this */

static uint32_t type_of(const CK_ATTRIBUTE *attribute)
{
    return attribute->type > TYPE_MOST ? (uint32_t)TYPE_MOST : (uint32_t)attribute->type;
}

static enum lnh_value_kind kind_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof lnh_values / sizeof lnh_values[0]; i++) {
        if (lnh_values[i].type == type)
            return lnh_values[i].kind;
    }
    return LNH_VALUE_BYTES;
}

static CK_ULONG ulong_at(const void *values, CK_ULONG index)
{
    CK_ULONG value;
    memcpy(&value, (const unsigned char *)values + index * sizeof value, sizeof value);
    return value;
}

static CK_ATTRIBUTE attribute_at(const void *attributes, CK_ULONG index)
{
    CK_ATTRIBUTE attribute;
    memcpy(&attribute, (const unsigned char *)attributes + index * sizeof attribute, sizeof attribute);
    return attribute;
}

static void write_template(struct call *call, const void *template, CK_ULONG count, int depth);

static void write_value(struct call *call, const CK_ATTRIBUTE *attribute, int depth)
{
    struct writer *request = &call->request;
    const void *value = attribute->pValue;
    CK_ULONG length = attribute->ulValueLen;
    bool fits = true;
    switch (kind_of(type_of(attribute))) {
    case LNH_VALUE_BYTE:
        fits = length == 1;
        if (fits)
            write_u8(request, *(const CK_BYTE *)value);
        break;
    case LNH_VALUE_ULONG:
        fits = length == sizeof(CK_ULONG);
        if (fits)
            write_u64(request, ulong_at(value, 0));
        break;
    case LNH_VALUE_MECHANISMS:
        fits = length % sizeof(CK_ULONG) == 0;
        write_u32(request, (uint32_t)(length / sizeof(CK_ULONG)));
        for (CK_ULONG i = 0; fits && i < length / sizeof(CK_ULONG); i++)
            write_u64(request, ulong_at(value, i));
        break;
    case LNH_VALUE_TEMPLATE:
        fits = length % sizeof(CK_ATTRIBUTE) == 0 && depth + 1 < LNH_DEPTH;
        if (fits)
            write_template(call, value, length / sizeof(CK_ATTRIBUTE), depth + 1);
        break;
    case LNH_VALUE_BYTES:
    case LNH_VALUE_DATE:
        write_u32(request, (uint32_t)length);
        write_bytes(request, value, length);
        break;
    }
    if (!fits)
        call_fail(call, CKR_ATTRIBUTE_VALUE_INVALID);
}

static void write_template(struct call *call, const void *template, CK_ULONG count, int depth)
{
    write_u32(&call->request, (uint32_t)count);
    for (CK_ULONG i = 0; i < count && call->rv == CKR_OK && !call->request.failed; i++) {
        CK_ATTRIBUTE attribute = attribute_at(template, i);
        bool valid = attribute.ulValueLen != CK_UNAVAILABLE_INFORMATION;
        write_u32(&call->request, type_of(&attribute));
        write_u8(&call->request, valid);
        if (!valid)
            continue;
        if (attribute.ulValueLen > LENGTH_MOST || (attribute.pValue == NULL && attribute.ulValueLen > 0)) {
            call_fail(call, CKR_ATTRIBUTE_VALUE_INVALID);
            return;
        }
        write_u32(&call->request, (uint32_t)attribute.ulValueLen);
        write_value(call, &attribute, depth);
    }
}

static bool is_there(struct call *call, const void *template, CK_ULONG count)
{
    if ((template == NULL && count > 0) || count > LENGTH_MOST)
        call_fail(call, CKR_ARGUMENTS_BAD);
    return call->rv == CKR_OK;
}

void put_template(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (call_writes(call, "aA") && is_there(call, template, count))
        write_template(call, template, count, 0);
}

static void write_room(struct call *call, const void *template, CK_ULONG count, int depth)
{
    write_u32(&call->request, (uint32_t)count);
    for (CK_ULONG i = 0; i < count && call->rv == CKR_OK && !call->request.failed; i++) {
        CK_ATTRIBUTE attribute = attribute_at(template, i);
        CK_ULONG room = attribute.pValue == NULL ? 0 : attribute.ulValueLen;
        if (room > LENGTH_MOST)
            room = LENGTH_MOST;
        write_u32(&call->request, type_of(&attribute));
        write_u32(&call->request, (uint32_t)room);
        if (room == 0 || kind_of(type_of(&attribute)) != LNH_VALUE_TEMPLATE)
            continue;
        if (depth + 1 >= LNH_DEPTH) {
            call_fail(call, CKR_ATTRIBUTE_VALUE_INVALID);
            return;
        }
        write_room(call, attribute.pValue, room / sizeof(CK_ATTRIBUTE), depth + 1);
    }
}

void put_template_room(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count)
{
    if (call_writes(call, "fA") && is_there(call, template, count))
        write_room(call, template, count, 0);
}

static bool read_template(struct call *call, void *template, CK_ULONG room, CK_ULONG *count, int depth, bool *small);

/* Give the application's attribute a value of `length` bytes; NULL where the gateway told the length alone. */
static void store(struct call *call, CK_ATTRIBUTE_PTR attribute, const void *value, CK_ULONG length, bool *small)
{
    if (attribute->pValue == NULL) {
        attribute->ulValueLen = length;
    } else if (attribute->ulValueLen < length) {
        attribute->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        *small = true;
    } else if (value == NULL && length > 0) {
        attribute->ulValueLen = CK_UNAVAILABLE_INFORMATION;
        call->reader.failed = true;
    } else {
        if (value != NULL)
            memcpy(attribute->pValue, value, length);
        attribute->ulValueLen = length;
    }
}

static void read_mechanisms(struct call *call, CK_ATTRIBUTE_PTR attribute, CK_ULONG length, bool *small)
{
    struct reader *reply = &call->reader;
    CK_ULONG count = read_u32(reply);
    bool told = count == NULL_LENGTH;
    const unsigned char *found = told ? NULL : read_bytes(reply, count * sizeof(CK_ULONG));
    if (!told && count != length / sizeof(CK_ULONG))
        reply->failed = true;
    if (reply->failed)
        return;
    if (told || attribute->pValue == NULL || attribute->ulValueLen < length) {
        store(call, attribute, NULL, length, small);
        return;
    }
    struct reader numbers;
    reader_open(&numbers, found, count * sizeof(CK_ULONG));
    for (CK_ULONG i = 0; i < count; i++) {
        CK_ULONG value = read_u64(&numbers);
        memcpy((unsigned char *)attribute->pValue + i * sizeof value, &value, sizeof value);
    }
    attribute->ulValueLen = length;
}

/* Read one value into the application's attribute, its length checked against its kind. */
static void read_value(struct call *call, CK_ATTRIBUTE_PTR attribute, uint32_t type, int depth, bool *small)
{
    struct reader *reply = &call->reader;
    CK_ULONG length = read_u32(reply);
    CK_ULONG number = 0;
    CK_BYTE byte = 0;
    bool fits = true;
    switch (kind_of(type)) {
    case LNH_VALUE_BYTE:
        byte = read_u8(reply);
        fits = length == sizeof byte;
        if (fits && !reply->failed)
            store(call, attribute, &byte, length, small);
        break;
    case LNH_VALUE_ULONG:
        number = read_u64(reply);
        fits = length == sizeof number;
        if (fits && !reply->failed)
            store(call, attribute, &number, length, small);
        break;
    case LNH_VALUE_MECHANISMS:
        fits = length % sizeof(CK_ULONG) == 0;
        if (fits)
            read_mechanisms(call, attribute, length, small);
        break;
    case LNH_VALUE_TEMPLATE: {
        /* The gateway's word does not make attributes of the application's bytes: it must have said so itself. */
        bool into = attribute->pValue != NULL && attribute->ulValueLen >= length && attribute->type == type;
        CK_ULONG room = into ? length / sizeof(CK_ATTRIBUTE) : 0;
        CK_ULONG count = 0;
        fits = length % sizeof(CK_ATTRIBUTE) == 0 && depth + 1 < LNH_DEPTH;
        if (!fits)
            break;
        bool told = !read_template(call, into ? attribute->pValue : NULL, room, &count, depth + 1, small);
        if (reply->failed)
            return;
        fits = told ? !into || length == 0 : count == length / sizeof(CK_ATTRIBUTE);
        if (fits && into)
            attribute->ulValueLen = length;
        else if (fits)
            store(call, attribute, NULL, length, small);
        break;
    }
    case LNH_VALUE_BYTES:
    case LNH_VALUE_DATE: {
        CK_ULONG count = read_u32(reply);
        const unsigned char *found = count == NULL_LENGTH ? NULL : read_bytes(reply, count);
        fits = count == NULL_LENGTH || count == length;
        if (fits && !reply->failed)
            store(call, attribute, found, length, small);
        break;
    }
    }
    if (!fits)
        reply->failed = true;
}

/*
 * Read attributes into a template of `room`, or past them where it is NULL. A template within one takes its types from
 * the reply. Returns false where only the length was told.
 */
static bool read_template(struct call *call, void *template, CK_ULONG room, CK_ULONG *count, int depth, bool *small)
{
    struct reader *reply = &call->reader;
    *count = read_u32(reply);
    if (*count == NULL_LENGTH || reply->failed) {
        *count = 0;
        return false;
    }
    if (template != NULL && *count > room)
        reply->failed = true;
    for (CK_ULONG i = 0; i < *count && !reply->failed; i++) {
        CK_ATTRIBUTE attribute = {0, NULL, 0};
        unsigned char *place = template == NULL ? NULL : (unsigned char *)template + i * sizeof attribute;
        uint32_t type = read_u32(reply);
        bool valid = read_u8(reply) != 0;
        if (place != NULL)
            attribute = attribute_at(place, 0);
        if (place != NULL && depth == 0 && type != type_of(&attribute))
            reply->failed = true;
        if (valid && !reply->failed)
            read_value(call, &attribute, type, depth, small);
        if (!valid || reply->failed)
            attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
        if (depth > 0)
            attribute.type = type;
        if (place != NULL)
            memcpy(place, &attribute, sizeof attribute);
    }
    return true;
}

void get_template(struct call *call, CK_ATTRIBUTE_PTR template, CK_ULONG count)
{
    CK_ULONG found = 0;
    bool small = false;
    if (!call_reads(call, "aA"))
        return;
    bool whole = read_template(call, template, count, &found, 0, &small);
    if (!whole || found != count || call->reader.failed)
        call_fail(call, CKR_DEVICE_ERROR);
    CK_RV told = get_ulong(call);
    if (told != CKR_OK)
        call_fail(call, told);
    if (small)
        call_fail(call, CKR_BUFFER_TOO_SMALL);
}
