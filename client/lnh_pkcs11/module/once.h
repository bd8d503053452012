/*
 * Begin an operation with the call that uses it, so that a signature is one message to the gateway instead of two.
 *
 * An application that signs again and again calls C_SignInit with the same mechanism and key before each C_Sign. Where the
 * gateway took just that in this session, and what was begun by it has ended, it takes it again: so C_SignInit answers
 * CKR_OK by itself, and what it owes goes along with C_Sign (SignOnce in calls.py). With any other call of the session what
 * is owed is sent first. Before whatever may change what the gateway answers, such as a login or a key that is destroyed,
 * all that is owed is sent, and nothing is kept; what others than this process change comes to light with C_Sign, as it does without this.
 */
#ifndef LNH_PKCS11_ONCE_H
#define LNH_PKCS11_ONCE_H

#include "call.h"

/* Mechanism and key of a begun operation, as they travel; longer parameters are not kept. */
struct begun {
    enum call_name init;
    size_t length;
    unsigned char fields[64];
};

/* Read out of a request that is written, but not sent, what it begins; false where that is not kept. */
bool once_read(const struct call *call, struct begun *begun);
/* Say whether the gateway would take this, as it did before; it is owed then. */
bool once_defers(CK_SESSION_HANDLE session, const struct begun *begun);
/* Note that the gateway took it. */
void once_accepted(CK_SESSION_HANDLE session, const struct begun *begun);
/* Take what is owed, for the call that uses it: that call's name becomes the one that does both. */
bool once_joins(CK_SESSION_HANDLE session, enum call_name *use, struct begun *begun);
/* Note that a call has ended what it used. */
void once_ended(CK_SESSION_HANDLE session, enum call_name use);
/* Before any other call: take what is owed, in its session or, where it changes them, in any; its caller sends that first. */
bool once_owes(const struct call *call, CK_SESSION_HANDLE *session, struct begun *begun);

/* Write it: mechanism and key. */
void put_begun(struct call *call, const struct begun *begun);

/* Forget everything: where a process begins, and in a child, which gets a lock of its own. */
void once_reset(bool in_child);
/* Around a fork. */
void once_lock(void);
void once_unlock(void);

#endif
