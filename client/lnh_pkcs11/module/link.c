#include "link.h"

#include "calls.h"
#include "once.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FIRST_CODE 0x10U
#define LINKS_KEPT 64              /* idle; what is beyond is closed after its call */
#define CONNECT_SECONDS 10         /* at most, for a gateway to take a socket and answer its first bytes */
#define TIMEOUT_SECONDS 300        /* for an answer, where LNH_PKCS11_TIMEOUT says nothing else */
#define TIMEOUT_SECONDS_MOST 86400
#define REPLY_MOST 0x4000000U      /* bytes of a reply; a longer one is no gateway's */
#define FIRST_READ 4096            /* bytes of a reply that memory is taken for before they are there */

struct link {
    struct link *next;
    int fd;          /* -1 once it is closed */
    dev_t device;    /* the socket that fd was: an application may close what is not its own */
    ino_t inode;
    bool busy;       /* lent to a call, whose thread closes it */
    uint32_t code;   /* of the last request */
};

static struct {
    pthread_mutex_t lock; /* never held while waiting for the gateway */
    enum { STOPPED, STARTING, STARTED } state;
    _Atomic pid_t process; /* that started; in another one, a child that no fork handler ran in, nothing is started */
    unsigned char token[LNH_PROCESS_BYTES];
    struct sockaddr_un address;
    int64_t timeout; /* milliseconds */
    struct link *links;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .state = STOPPED};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Say whether fd is still the socket that was opened, and no file of the application's that took its number. */
static bool is_ours(const struct link *link)
{
    struct stat status;
    return link->fd >= 0 && fstat(link->fd, &status) == 0 && S_ISSOCK(status.st_mode) &&
           status.st_dev == link->device && status.st_ino == link->inode;
}

static void close_link(struct link *link)
{
    if (is_ours(link))
        close(link->fd);
    link->fd = -1;
}

static bool is_dead(const struct link *link)
{
    struct pollfd poller = {.fd = link->fd, .events = POLLRDHUP};
    return !is_ours(link) || poll(&poller, 1, 0) > 0;
}

/* Under the lock: forget all links. Idle ones are freed; those lent to calls end, and are freed by them. */
static void drop_all(void)
{
    struct link *link = pool.links;
    pool.links = NULL;
    while (link != NULL) {
        struct link *next = link->next;
        if (!link->busy) {
            close_link(link);
            free(link);
        } else if (is_ours(link)) {
            shutdown(link->fd, SHUT_RDWR);
        }
        link = next;
    }
}

/* Under the lock: take a link out of the pool; false where it is there no longer. */
static bool take_out(const struct link *link)
{
    for (struct link **place = &pool.links; *place != NULL; place = &(*place)->next) {
        if (*place == link) {
            *place = link->next;
            return true;
        }
    }
    return false;
}

bool link_is_started(void)
{
    return pool.process == getpid();
}

static void before_fork(void)
{
    pthread_mutex_lock(&pool.lock);
    once_lock();
}

static void in_parent(void)
{
    once_unlock();
    pthread_mutex_unlock(&pool.lock);
}

/* Close the child's copies of the sockets. Not by shutdown, which would end the parent's connections, too. */
static void become_child(void)
{
    for (struct link *link = pool.links; link != NULL; link = link->next)
        close_link(link);
    pool.links = NULL;
    pool.state = STOPPED;
    pool.process = 0;
    explicit_bzero(pool.token, sizeof pool.token);
}

static void in_child(void)
{
    become_child();
    once_unlock();
    pthread_mutex_unlock(&pool.lock);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

/* Say where the gateway listens: LNH_PKCS11_ADDRESS, but not in a program with rights that its caller lacks. */
static bool find_address(struct sockaddr_un *address)
{
    const char *given = secure_getenv("LNH_PKCS11_ADDRESS");
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    int length;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (given != NULL && given[0] != '\0')
        length = snprintf(address->sun_path, sizeof address->sun_path, "%s", given);
    else if (runtime != NULL && runtime[0] != '\0')
        length = snprintf(address->sun_path, sizeof address->sun_path, "%s/lnh/pkcs11.sock", runtime);
    else
        length = snprintf(address->sun_path, sizeof address->sun_path, "/run/user/%lu/lnh/pkcs11.sock",
                          (unsigned long)geteuid());
    return length > 0 && (size_t)length < sizeof address->sun_path;
}

static int64_t find_timeout(void)
{
    const char *given = secure_getenv("LNH_PKCS11_TIMEOUT");
    char *end = NULL;
    long seconds = given == NULL ? 0 : strtol(given, &end, 10);
    if (given == NULL || end == given || *end != '\0' || seconds < 1 || seconds > TIMEOUT_SECONDS_MOST)
        seconds = TIMEOUT_SECONDS;
    return seconds * 1000;
}

/* Wait until the socket can be read or written, or has failed, which the next call on it says. */
static bool wait_for(const struct link *link, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - now();
        if (left <= 0)
            return false;
        struct pollfd poller = {.fd = link->fd, .events = events};
        int ready = poll(&poller, 1, left > 60000 ? 60000 : (int)left);
        if (ready > 0)
            return true;
        if (ready < 0 && errno != EINTR)
            return false;
    }
}

/* Send all; MSG_NOSIGNAL: the application is never sent SIGPIPE. */
static bool send_all(const struct link *link, const unsigned char *data, size_t length, int64_t deadline)
{
    while (length > 0) {
        ssize_t sent = send(link->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            data += sent;
            length -= (size_t)sent;
        } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!wait_for(link, POLLOUT, deadline))
                return false;
        } else if (sent == 0 || errno != EINTR) {
            return false;
        }
    }
    return true;
}

static bool receive_all(const struct link *link, unsigned char *data, size_t length, int64_t deadline)
{
    while (length > 0) {
        ssize_t received = recv(link->fd, data, length, MSG_DONTWAIT);
        if (received > 0) {
            data += received;
            length -= (size_t)received;
        } else if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!wait_for(link, POLLIN, deadline))
                return false;
        } else if (received == 0 || errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* Open a socket beyond 0, 1 and 2, which an application that closed them takes for its input and output. */
static int open_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && fd <= STDERR_FILENO) {
        int low = fd;
        fd = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        close(low);
    }
    return fd;
}

/* Connect a link that is in the pool already, so that a fork meanwhile closes the child's copy of its socket. */
static CK_RV connect_link(struct link *link)
{
    struct timeval patience = {.tv_sec = 0};
    struct stat status;
    unsigned char hello[2 + LNH_PROCESS_BYTES] = {LNH_MODULE, LNH_MODULE_VERSION};
    unsigned char answer[2] = {0, 0};
    struct sockaddr_un address;

    pthread_mutex_lock(&pool.lock);
    memcpy(hello + 2, pool.token, sizeof pool.token);
    address = pool.address;
    patience.tv_sec = pool.timeout / 1000 < CONNECT_SECONDS ? pool.timeout / 1000 : CONNECT_SECONDS;
    link->fd = open_socket();
    if (link->fd >= 0 && fstat(link->fd, &status) == 0) {
        link->device = status.st_dev;
        link->inode = status.st_ino;
    }
    pthread_mutex_unlock(&pool.lock);
    int64_t deadline = now() + patience.tv_sec * 1000;
    /* By which connect gives up on a gateway that takes no more. */
    if (link->fd < 0 || setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) {
        trace("no socket is to be had: %s", strerror(errno));
        return CKR_DEVICE_ERROR;
    }
    while (connect(link->fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        if (errno != EINTR || now() >= deadline) {
            trace("no gateway at %s: %s; is `lnh pkcs11 serve` running?", address.sun_path, strerror(errno));
            return CKR_TOKEN_NOT_PRESENT;
        }
    }
    bool said = send_all(link, hello, sizeof hello, deadline) && receive_all(link, answer, sizeof answer, deadline);
    explicit_bzero(hello, sizeof hello);
    if (said && answer[0] == LNH_MODULE && answer[1] >= 1 && answer[1] <= LNH_MODULE_VERSION)
        return CKR_OK;
    trace("%s: %s", address.sun_path,
          said                ? "what listens there speaks otherwise than a gateway of this version"
          : now() >= deadline ? "the gateway takes the socket and says nothing"
                              : "the gateway closed the socket: it lets this user not in, or has too many");
    return CKR_DEVICE_ERROR;
}

enum loss { FORGOTTEN, KNOWN, STOPPED_MEANWHILE };

/*
 * End a link that failed, and those that failed with it unnoticed; say whether the gateway still knows the process, by
 * another one.
 */
static enum loss lose(struct link *link)
{
    bool known = false;
    pthread_mutex_lock(&pool.lock);
    bool mine = take_out(link);
    close_link(link);
    if (mine) {
        struct link **place = &pool.links;
        while (*place != NULL) {
            struct link *other = *place;
            if (!is_dead(other)) {
                known = true;
            } else if (!other->busy) {
                *place = other->next;
                close_link(other);
                free(other);
                continue;
            }
            place = &other->next;
        }
    }
    pthread_mutex_unlock(&pool.lock);
    free(link);
    if (!mine)
        return STOPPED_MEANWHILE;
    if (!known)
        once_reset(false);
    return known ? KNOWN : FORGOTTEN;
}

/* Lend an idle link, or a new one that is connected first. */
static CK_RV borrow(struct link **lent)
{
    struct link *fresh = NULL;
    *lent = NULL;
    if (pool.process != getpid())
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    pthread_mutex_lock(&pool.lock);
    if (pool.state == STOPPED) {
        pthread_mutex_unlock(&pool.lock);
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    struct link **place = &pool.links;
    while (*place != NULL && *lent == NULL) {
        struct link *link = *place;
        if (link->busy) {
            place = &link->next;
        } else if (is_ours(link)) {
            link->busy = true;
            *lent = link;
        } else {
            *place = link->next;
            free(link);
        }
    }
    if (*lent == NULL) {
        fresh = calloc(1, sizeof *fresh);
        if (fresh != NULL) {
            fresh->fd = -1;
            fresh->busy = true;
            fresh->code = FIRST_CODE;
            fresh->next = pool.links;
            pool.links = fresh;
        }
    }
    pthread_mutex_unlock(&pool.lock);
    if (*lent != NULL)
        return CKR_OK;
    if (fresh == NULL)
        return CKR_HOST_MEMORY;
    CK_RV rv = connect_link(fresh);
    if (rv == CKR_OK)
        *lent = fresh;
    else if (lose(fresh) == STOPPED_MEANWHILE)
        rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    return rv;
}

/* Take a link back; one that is the pool's no longer, since the module was stopped or forked meanwhile, ends. */
static CK_RV give_back(struct link *link)
{
    size_t idle = 0;
    bool kept = false;
    pthread_mutex_lock(&pool.lock);
    bool mine = false;
    for (const struct link *other = pool.links; other != NULL; other = other->next) {
        mine = mine || other == link;
        idle += !other->busy;
    }
    if (mine && idle < LINKS_KEPT) {
        link->busy = false;
        kept = true;
    } else {
        take_out(link);
        close_link(link);
    }
    pthread_mutex_unlock(&pool.lock);
    if (!kept)
        free(link);
    return mine ? CKR_OK : CKR_CRYPTOKI_NOT_INITIALIZED;
}

static void put_u32(unsigned char *place, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        place[i] = (unsigned char)(value >> (8 * (3 - i)));
}

static bool send_request(struct link *link, struct writer *request, int64_t deadline)
{
    link->code = link->code == UINT32_MAX ? FIRST_CODE : link->code + 1;
    put_u32(request->data, link->code);
    put_u32(request->data + 4, 0);
    put_u32(request->data + 8, (uint32_t)(request->length - FRAME_HEADER));
    return send_all(link, request->data, request->length, deadline);
}

/* Read a reply; its memory grows with what has come, and not with what its header says is to come. */
static bool receive_reply(const struct link *link, struct reply *reply, int64_t deadline)
{
    unsigned char header[FRAME_HEADER];
    struct reader reader;
    if (!receive_all(link, header, sizeof header, deadline))
        return false;
    reader_open(&reader, header, sizeof header);
    uint32_t code = read_u32(&reader);
    uint32_t options = read_u32(&reader);
    size_t length = read_u32(&reader);
    if (code != link->code || options != 0 || length > REPLY_MOST)
        return false;
    while (reply->length < length) {
        size_t room = reply->room == 0 ? FIRST_READ : reply->room * 2;
        if (room > length)
            room = length;
        unsigned char *larger = malloc(room);
        if (larger == NULL)
            return false;
        if (reply->length > 0) {
            memcpy(larger, reply->data, reply->length);
            explicit_bzero(reply->data, reply->length);
        }
        free(reply->data);
        reply->data = larger;
        reply->room = room;
        if (!receive_all(link, larger + reply->length, room - reply->length, deadline))
            return false;
        reply->length = room;
    }
    return true;
}

void reply_free(struct reply *reply)
{
    if (reply->data != NULL)
        explicit_bzero(reply->data, reply->room);
    free(reply->data);
    *reply = (struct reply){0};
}

CK_RV link_exchange(struct writer *request, struct reply *reply)
{
    if (request->length - FRAME_HEADER > UINT32_MAX)
        return CKR_DATA_LEN_RANGE;
    /* The second time is for a link that the gateway closed while it was idle. */
    for (int attempt = 0; attempt < 2; attempt++) {
        struct link *link;
        CK_RV rv = borrow(&link);
        if (rv != CKR_OK)
            return rv;
        int64_t deadline = now() + pool.timeout;
        bool sent = send_request(link, request, deadline);
        if (sent && receive_reply(link, reply, deadline))
            return give_back(link);
        bool late = now() >= deadline;
        enum loss loss = lose(link);
        if (loss == STOPPED_MEANWHILE)
            return CKR_CRYPTOKI_NOT_INITIALIZED;
        if (sent || loss == FORGOTTEN) {
            trace("%s%s", late ? "the gateway did not answer in time" : "the gateway closed the socket, or spoke otherwise",
                  loss == FORGOTTEN ? "; it has nothing of this process any more, sessions and logins are gone" : "");
            break;
        }
    }
    return CKR_DEVICE_ERROR;
}

CK_RV link_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CK_RV rv = CKR_OK;
    struct link *link;
    pthread_once(&once, watch_forks);
    if (pool.process != getpid() && pool.process != 0) {
        /* A child that no fork handler ran in; a thread of the parent may have held the lock that this one is a copy of. */
        pthread_mutex_init(&pool.lock, NULL);
        once_reset(true);
        become_child();
    }
    trace_open();
    pthread_mutex_lock(&pool.lock);
    if (pool.state != STOPPED) {
        rv = CKR_CRYPTOKI_ALREADY_INITIALIZED;
    } else if (!find_address(&pool.address)) {
        trace("the gateway's path is longer than a socket's may be: LNH_PKCS11_ADDRESS, or XDG_RUNTIME_DIR");
        rv = CKR_FUNCTION_FAILED;
    } else if (getrandom(pool.token, sizeof pool.token, 0) != (ssize_t)sizeof pool.token) {
        rv = CKR_FUNCTION_FAILED;
    } else {
        pool.timeout = find_timeout();
        pool.process = getpid();
        pool.state = STARTING;
        once_reset(false);
    }
    pthread_mutex_unlock(&pool.lock);
    if (rv != CKR_OK)
        return rv;
    rv = borrow(&link);
    if (rv == CKR_OK)
        rv = give_back(link);
    pthread_mutex_lock(&pool.lock);
    pool.state = rv == CKR_OK ? STARTED : STOPPED;
    if (rv != CKR_OK)
        drop_all();
    pthread_mutex_unlock(&pool.lock);
    /* C_Initialize uses no token, so it has no word for one that is not there. */
    return rv == CKR_DEVICE_ERROR || rv == CKR_TOKEN_NOT_PRESENT ? CKR_FUNCTION_FAILED : rv;
}

CK_RV link_stop(void)
{
    CK_RV rv = CKR_CRYPTOKI_NOT_INITIALIZED;
    if (pool.process != getpid())
        return rv;
    pthread_mutex_lock(&pool.lock);
    if (pool.state == STARTED) {
        drop_all();
        pool.state = STOPPED;
        once_reset(false);
        explicit_bzero(pool.token, sizeof pool.token);
        rv = CKR_OK;
    }
    pthread_mutex_unlock(&pool.lock);
    return rv;
}
