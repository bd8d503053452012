#include "once.h"

#include <pthread.h>
#include <string.h>

#define SESSIONS_KEPT 256 /* another session in one's place is not an error: it is asked in two messages */

static const struct {
    enum call_name init, use, once;
} joined[] = {
    {CALL_SignInit, CALL_Sign, CALL_SignOnce},
    {CALL_VerifyInit, CALL_Verify, CALL_VerifyOnce},
    {CALL_EncryptInit, CALL_Encrypt, CALL_EncryptOnce},
    {CALL_DecryptInit, CALL_Decrypt, CALL_DecryptOnce},
};
#define JOINED (sizeof joined / sizeof joined[0])

/* Calls after which the gateway may answer otherwise in other sessions than their own: all is sent before. */
static const enum call_name changing[] = {
    CALL_CloseAllSessions, CALL_Login, CALL_LoginUser, CALL_Logout,        CALL_InitPIN,
    CALL_SetPIN,           CALL_InitToken, CALL_DestroyObject, CALL_SetAttributeValue,
};

struct place {
    CK_SESSION_HANDLE session;
    enum { NOTHING, ACCEPTED, ENDED, OWED } state;
    struct begun begun;
};

static struct {
    pthread_mutex_t lock; /* never held while waiting for the gateway */
    struct place places[SESSIONS_KEPT];
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct place *place_of(CK_SESSION_HANDLE session)
{
    return &table.places[session % SESSIONS_KEPT];
}

static size_t row_of_init(enum call_name init)
{
    size_t row = 0;
    while (row < JOINED && joined[row].init != init)
        row++;
    return row;
}

static bool is_same(const struct begun *one, const struct begun *other)
{
    return one->init == other->init && one->length == other->length &&
           memcmp(one->fields, other->fields, one->length) == 0;
}

bool once_read(const struct call *call, struct begun *begun)
{
    /* id, length of letters, "uMu", session */
    const size_t front = FRAME_HEADER + 4 + 4 + 3 + 8;
    if (call->rv != CKR_OK || call->request.failed || *call->fields != '\0' || row_of_init(call->name) == JOINED ||
        call->request.length - front > sizeof begun->fields)
        return false;
    begun->init = call->name;
    begun->length = call->request.length - front;
    memcpy(begun->fields, call->request.data + front, begun->length);
    return true;
}

bool once_defers(CK_SESSION_HANDLE session, const struct begun *begun)
{
    bool defers = false;
    if (!link_is_started())
        return false;
    pthread_mutex_lock(&table.lock);
    struct place *place = place_of(session);
    if (place->session == session && place->state == ENDED && is_same(&place->begun, begun)) {
        place->state = OWED;
        defers = true;
    }
    pthread_mutex_unlock(&table.lock);
    return defers;
}

void once_accepted(CK_SESSION_HANDLE session, const struct begun *begun)
{
    pthread_mutex_lock(&table.lock);
    struct place *place = place_of(session);
    if (place->state != OWED)
        *place = (struct place){session, ACCEPTED, *begun};
    pthread_mutex_unlock(&table.lock);
}

bool once_joins(CK_SESSION_HANDLE session, enum call_name *use, struct begun *begun)
{
    bool joins = false;
    if (!link_is_started())
        return false;
    pthread_mutex_lock(&table.lock);
    struct place *place = place_of(session);
    if (place->session == session && place->state == OWED) {
        size_t row = row_of_init(place->begun.init);
        if (joined[row].use == *use) {
            *use = joined[row].once;
            *begun = place->begun;
            place->state = ACCEPTED;
            joins = true;
        }
    }
    pthread_mutex_unlock(&table.lock);
    return joins;
}

void once_ended(CK_SESSION_HANDLE session, enum call_name use)
{
    pthread_mutex_lock(&table.lock);
    struct place *place = place_of(session);
    if (place->session == session && place->state == ACCEPTED) {
        size_t row = row_of_init(place->begun.init);
        if (joined[row].use == use || joined[row].once == use)
            place->state = ENDED;
    }
    pthread_mutex_unlock(&table.lock);
}

/* Say whether a call is one of those that this file joins: what they leave in the table is theirs. */
static bool is_joined(enum call_name name)
{
    for (size_t row = 0; row < JOINED; row++) {
        if (joined[row].use == name || joined[row].once == name)
            return true;
    }
    return false;
}

static bool is_changing(enum call_name name)
{
    for (size_t i = 0; i < sizeof changing / sizeof changing[0]; i++) {
        if (changing[i] == name)
            return true;
    }
    return false;
}

/* Under the lock: take what any session owes; where none does, have every one ask in two messages again. */
static bool take_any(CK_SESSION_HANDLE *of, struct begun *begun)
{
    for (size_t i = 0; i < SESSIONS_KEPT; i++) {
        struct place *place = &table.places[i];
        bool owes = place->state == OWED;
        place->state = NOTHING;
        if (owes) {
            *of = place->session;
            *begun = place->begun;
            return true;
        }
    }
    return false;
}

bool once_owes(const struct call *call, CK_SESSION_HANDLE *of, struct begun *begun)
{
    bool owes = false;
    struct reader first;
    const size_t front = FRAME_HEADER + 4 + 4 + strlen(call->letters);
    if (call->letters[0] != 'u' || !link_is_started())
        return false;
    reader_open(&first, call->request.data + front, call->request.length - front);
    CK_SESSION_HANDLE session = read_u64(&first);
    *of = session;
    pthread_mutex_lock(&table.lock);
    struct place *place = place_of(session);
    if (place->session == session) {
        owes = place->state == OWED;
        if (owes)
            *begun = place->begun;
        if (owes || (place->state == ENDED && !is_joined(call->name)))
            place->state = NOTHING;
    }
    if (!owes && is_changing(call->name))
        owes = take_any(of, begun);
    pthread_mutex_unlock(&table.lock);
    return owes;
}

void once_reset(bool in_child)
{
    if (in_child)
        pthread_mutex_init(&table.lock, NULL);
    pthread_mutex_lock(&table.lock);
    explicit_bzero(table.places, sizeof table.places);
    pthread_mutex_unlock(&table.lock);
}

void once_lock(void)
{
    pthread_mutex_lock(&table.lock);
}

void once_unlock(void)
{
    pthread_mutex_unlock(&table.lock);
}
