/*
 * The way to the gateway: a pool of sockets, one a call in flight, of one process.
 *
 * The gateway knows a process by a random token, which each of its sockets begins with, and forgets it with the last
 * of them. So the module knows by itself when its sessions are gone: when it has no socket left that is connected. It
 * then answers CKR_DEVICE_ERROR, once, and begins anew with the next call; while there is no gateway to connect to, it
 * answers CKR_TOKEN_NOT_PRESENT. A request is repeated only where the gateway did not get all of it and still knows the
 * process.
 *
 * A fork leaves the child with nothing: its copies of the sockets are closed and its state is as before C_Initialize.
 */
#ifndef LNH_PKCS11_LINK_H
#define LNH_PKCS11_LINK_H

#include "pkcs11.h"
#include "wire.h"

/* Draw the process's token and connect; CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_FUNCTION_FAILED without a gateway. */
CK_RV link_start(void);
/* Say whether this process has begun, and not only one that it is a fork of. */
bool link_is_started(void);
/* Close all sockets; calls in flight end with an error. */
CK_RV link_stop(void);

/* A reply's memory, which belongs to the caller. */
struct reply {
    unsigned char *data;
    size_t length;
    size_t room;
};

#define FRAME_HEADER 12 /* bytes in front of a body: code, length of options, length of data */

/*
 * Send a request and await its reply's body. `request` begins with room for the frame's header; `reply` is empty before,
 * and wiped and freed by `reply_free`.
 */
CK_RV link_exchange(struct writer *request, struct reply *reply);
void reply_free(struct reply *reply);

#endif
