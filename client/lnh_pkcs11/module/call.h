/*
 * One call: its fields written to a frame in the order of its row in calls.h, and its reply's read from one.
 *
 * Errors stick: after the first, `rv`, nothing is sent, read or written to the application any more. So a function of
 * PKCS#11 is a list of its fields.
 */
#ifndef LNH_PKCS11_CALL_H
#define LNH_PKCS11_CALL_H

#include "calls.h"
#include "link.h"
#include "pkcs11.h"
#include "wire.h"

#define NULL_LENGTH 0xffffffffU  /* says that a pointer is NULL, or a buffer has no room */
#define LENGTH_MOST 0xfffffffeU

#define LNH_CALL_NAME(name, id, request, reply, major, minor) CALL_##name,
enum call_name { LNH_CALLS(LNH_CALL_NAME) };
#undef LNH_CALL_NAME

struct call {
    struct writer request;
    struct reply reply;
    struct reader reader;
    const char *letters; /* of the request */
    const char *fields;  /* of the request that are still to be written */
    const char *answers; /* of the reply that are still to be read */
    enum call_name name;
    CK_RV rv;
};

void call_open(struct call *call, enum call_name name);
/* Send the request and check the reply's head: its id, its signature, or the error that it is. */
void call_send(struct call *call);
/* End a call that is not sent. */
void call_drop(struct call *call);
/* Check that all of the reply was read, wipe all, and return what the application is told. */
CK_RV call_close(struct call *call);

/* Keep the first error. */
void call_fail(struct call *call, CK_RV rv);
/* Say whether `field` is the next of the request or the reply, and no error was before. */
bool call_writes(struct call *call, const char *field);
bool call_reads(struct call *call, const char *field);

void put_ulong(struct call *call, CK_ULONG value);
void put_byte(struct call *call, CK_BYTE value);
void put_bytes(struct call *call, const void *bytes, CK_ULONG length);
void put_text(struct call *call, const void *text, CK_ULONG length);
/* Say how much room a buffer has; 0 asks for the length that is needed. */
void put_room(struct call *call, const char *field, const void *buffer, CK_ULONG room);

CK_ULONG get_ulong(struct call *call);
CK_VERSION get_version(struct call *call);
/* Read text of a fixed length. */
void get_text(struct call *call, CK_UTF8CHAR *text, CK_ULONG length);
/* Read bytes, or numbers, into a buffer of `*length`, which becomes their count; CKR_BUFFER_TOO_SMALL. */
void get_bytes(struct call *call, CK_BYTE_PTR buffer, CK_ULONG_PTR length);
void get_ulongs(struct call *call, CK_ULONG_PTR buffer, CK_ULONG_PTR length);

/* attributes.c */
void put_template(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count);
void put_template_room(struct call *call, const CK_ATTRIBUTE *template, CK_ULONG count);
void get_template(struct call *call, CK_ATTRIBUTE_PTR template, CK_ULONG count);

/* parameters.c */
void put_mechanism(struct call *call, const CK_MECHANISM *mechanism);
void put_message(struct call *call, const void *parameter, CK_ULONG length);
void get_message(struct call *call, void *parameter, CK_ULONG length);

#endif
