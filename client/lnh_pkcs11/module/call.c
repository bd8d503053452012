#include "call.h"

#include "once.h"
#include "trace.h"

#include <string.h>

_Static_assert(sizeof(CK_ULONG) == 8, "lengths and numbers travel as those of a 64-bit application");

struct row {
    uint32_t id;
    const char *name;
    const char *request;
    const char *reply;
};

#define LNH_ROW(name, id, request, reply, major, minor) [CALL_##name] = {id, #name, request, reply},
static const struct row rows[] = {LNH_CALLS(LNH_ROW)};

void call_fail(struct call *call, CK_RV rv)
{
    if (call->rv == CKR_OK)
        call->rv = rv;
}

/* Take `field` from the front of `fields`. What does not fit there is a fault of the caller's. */
static bool take(struct call *call, const char **fields, const char *field)
{
    size_t length = strlen(field);
    if (call->rv != CKR_OK)
        return false;
    if (strncmp(*fields, field, length) != 0) {
        call->rv = CKR_GENERAL_ERROR;
        return false;
    }
    *fields += length;
    return true;
}

bool call_writes(struct call *call, const char *field)
{
    return take(call, &call->fields, field);
}

bool call_reads(struct call *call, const char *field)
{
    return take(call, &call->answers, field);
}

void call_open(struct call *call, enum call_name name)
{
    const struct row *row = &rows[name];
    writer_open(&call->request);
    call->reply = (struct reply){0};
    call->letters = row->request;
    call->fields = row->request;
    call->answers = row->reply;
    call->name = name;
    call->rv = CKR_OK;
    writer_extend(&call->request, FRAME_HEADER);
    write_u32(&call->request, row->id);
    write_u32(&call->request, (uint32_t)strlen(row->request));
    write_bytes(&call->request, row->request, strlen(row->request));
}

/* Say whether a call is one that uses no token, and so cannot be answered that there is none (v3.1, 5.1.3). */
static bool uses_no_token(enum call_name name)
{
    return name == CALL_GetInfo || name == CALL_GetSlotList || name == CALL_GetSlotInfo || name == CALL_WaitForSlotEvent;
}

/* Send the request, and check the reply's head. */
static void exchange(struct call *call)
{
    const struct row *row = &rows[call->name];
    if (call->rv == CKR_OK && *call->fields != '\0')
        call->rv = CKR_GENERAL_ERROR;
    if (call->request.failed)
        call_fail(call, CKR_HOST_MEMORY);
    if (call->rv == CKR_OK)
        call->rv = link_exchange(&call->request, &call->reply);
    if (call->rv == CKR_TOKEN_NOT_PRESENT && uses_no_token(call->name))
        call->rv = CKR_FUNCTION_FAILED;
    if (call->rv != CKR_OK)
        return;
    reader_open(&call->reader, call->reply.data, call->reply.length);
    uint32_t id = read_u32(&call->reader);
    const char *expected = id == LNH_ERROR ? "u" : row->reply;
    size_t length = read_u32(&call->reader);
    const unsigned char *signature = read_bytes(&call->reader, length);
    if (signature == NULL || (id != LNH_ERROR && id != row->id) || length != strlen(expected) ||
        memcmp(signature, expected, length) != 0) {
        call->rv = CKR_DEVICE_ERROR;
    } else if (id == LNH_ERROR) {
        CK_RV rv = read_u64(&call->reader);
        call->rv = reader_at_end(&call->reader) && rv != CKR_OK ? rv : CKR_DEVICE_ERROR;
    }
}

/* Begin what is still owed to the gateway. Where that is refused, what follows finds nothing that was begun. */
static void settle(const struct call *call)
{
    CK_SESSION_HANDLE session;
    struct begun begun;
    struct call init;
    while (once_owes(call, &session, &begun)) {
        call_open(&init, begun.init);
        put_ulong(&init, session);
        put_begun(&init, &begun);
        exchange(&init);
        call_close(&init);
    }
}

void call_send(struct call *call)
{
    if (call->rv == CKR_OK && !call->request.failed && *call->fields == '\0')
        settle(call);
    exchange(call);
}

void call_drop(struct call *call)
{
    writer_close(&call->request);
    reply_free(&call->reply);
}

CK_RV call_close(struct call *call)
{
    if (call->rv == CKR_OK && *call->answers != '\0')
        call->rv = CKR_GENERAL_ERROR;
    if (call->rv == CKR_OK && !reader_at_end(&call->reader))
        call->rv = CKR_DEVICE_ERROR;
    if (call->rv != CKR_OK)
        trace("C_%s: CKR %#lx", rows[call->name].name, call->rv);
    call_drop(call);
    return call->rv;
}

void put_ulong(struct call *call, CK_ULONG value)
{
    if (call_writes(call, "u"))
        write_u64(&call->request, value);
}

void put_begun(struct call *call, const struct begun *begun)
{
    if (call_writes(call, "M") && call_writes(call, "u"))
        write_bytes(&call->request, begun->fields, begun->length);
}

void put_byte(struct call *call, CK_BYTE value)
{
    if (call_writes(call, "y"))
        write_u8(&call->request, value);
}

void put_bytes(struct call *call, const void *bytes, CK_ULONG length)
{
    if (!call_writes(call, "ay"))
        return;
    if (bytes == NULL && length > 0) {
        call_fail(call, CKR_ARGUMENTS_BAD);
    } else if (length > LENGTH_MOST) {
        call_fail(call, CKR_DATA_LEN_RANGE);
    } else {
        write_u8(&call->request, bytes != NULL);
        write_u32(&call->request, (uint32_t)length);
        write_bytes(&call->request, bytes, length);
    }
}

void put_text(struct call *call, const void *text, CK_ULONG length)
{
    if (!call_writes(call, "z"))
        return;
    if (length > LENGTH_MOST) {
        call_fail(call, CKR_ARGUMENTS_BAD);
    } else if (text == NULL) {
        write_u32(&call->request, NULL_LENGTH);
    } else {
        write_u32(&call->request, (uint32_t)length);
        write_bytes(&call->request, text, length);
    }
}

void put_room(struct call *call, const char *field, const void *buffer, CK_ULONG room)
{
    if (!call_writes(call, field))
        return;
    if (buffer == NULL)
        write_u32(&call->request, 0);
    else if (room == 0)
        write_u32(&call->request, NULL_LENGTH);
    else
        write_u32(&call->request, room > LENGTH_MOST ? LENGTH_MOST : (uint32_t)room);
}

/* Note that the reply ended early or does not fit. */
static bool malformed(struct call *call)
{
    if (call->reader.failed)
        call_fail(call, CKR_DEVICE_ERROR);
    return call->rv != CKR_OK;
}

CK_ULONG get_ulong(struct call *call)
{
    if (!call_reads(call, "u"))
        return 0;
    CK_ULONG value = read_u64(&call->reader);
    return malformed(call) ? 0 : value;
}

CK_VERSION get_version(struct call *call)
{
    CK_VERSION version = {0, 0};
    if (!call_reads(call, "v"))
        return version;
    version.major = read_u8(&call->reader);
    version.minor = read_u8(&call->reader);
    malformed(call);
    return version;
}

void get_text(struct call *call, CK_UTF8CHAR *text, CK_ULONG length)
{
    if (!call_reads(call, "s"))
        return;
    if (read_u32(&call->reader) != length)
        call->reader.failed = true;
    const unsigned char *found = read_bytes(&call->reader, length);
    if (!malformed(call))
        memcpy(text, found, length);
}

/* Read what begins an array: whether it is there, and its count; say whether the caller is to copy it. */
static bool get_array(struct call *call, const void *buffer, CK_ULONG_PTR length, size_t size,
                      const unsigned char **found)
{
    bool present = read_u8(&call->reader) != 0;
    size_t count = read_u32(&call->reader);
    *found = present ? read_bytes(&call->reader, count * size) : NULL;
    if (malformed(call))
        return false;
    CK_ULONG room = *length;
    *length = count;
    if (buffer == NULL)
        return false;
    if (count > room) {
        call_fail(call, CKR_BUFFER_TOO_SMALL);
        return false;
    }
    if (!present && count > 0) {
        call_fail(call, CKR_DEVICE_ERROR);
        return false;
    }
    return present;
}

void get_bytes(struct call *call, CK_BYTE_PTR buffer, CK_ULONG_PTR length)
{
    const unsigned char *found;
    if (call_reads(call, "ay") && get_array(call, buffer, length, 1, &found) && *length > 0)
        memcpy(buffer, found, *length);
}

void get_ulongs(struct call *call, CK_ULONG_PTR buffer, CK_ULONG_PTR length)
{
    const unsigned char *found;
    struct reader numbers;
    if (!call_reads(call, "au") || !get_array(call, buffer, length, 8, &found))
        return;
    reader_open(&numbers, found, *length * 8);
    for (CK_ULONG i = 0; i < *length; i++)
        buffer[i] = read_u64(&numbers);
}
