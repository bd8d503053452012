/*
 * Signs through a PKCS#11 module, and says how fast it went: `driver MODULE TOKEN`, with the PIN in the environment.
 *
 * It reads a line for each thing to do, and answers with a line of numbers:
 *
 *     make STORED               makes the keys that are used, a P-256 and an RSA-2048 pair, of the token (1) or of the session (0)
 *     first                     C_Initialize to the first P-256 signature: microseconds of all, and of C_Login alone
 *     sign KEY THREADS SECONDS  signatures a second, median microseconds of one, microseconds of this processor time each
 *
 * A thread has a session of its own; all are of one login.
 */
#include "../client/lnh_pkcs11/module/pkcs11.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define SERIAL_SESSION 0x4UL
#define RW_SESSION 0x2UL
#define USER 1UL
#define PRIVATE_KEY 3UL
#define A_CLASS 0x000UL
#define A_TOKEN 0x001UL
#define A_LABEL 0x003UL
#define A_SIGN 0x108UL
#define A_VERIFY 0x10AUL
#define A_MODULUS_BITS 0x121UL
#define A_EC_PARAMS 0x180UL
#define RSA_PKCS_KEY_PAIR_GEN 0x0000UL
#define SHA256_RSA_PKCS 0x0040UL
#define EC_KEY_PAIR_GEN 0x1040UL
#define ECDSA 0x1041UL

#define THREADS_MOST 64
#define SLOTS_MOST 64
#define SAMPLES_MOST 200000
#define SIGNATURE_MOST 512

struct key {
    const char *name;
    CK_MECHANISM_TYPE makes, signs;
};

static const struct key keys[] = {
    {"p256", EC_KEY_PAIR_GEN, ECDSA},
    {"rsa2048", RSA_PKCS_KEY_PAIR_GEN, SHA256_RSA_PKCS},
};
#define KEYS (sizeof keys / sizeof keys[0])

struct signing {
    pthread_barrier_t *begin;
    const struct key *key;
    CK_OBJECT_HANDLE object;
    double seconds;
    double *samples;
    size_t count;
};

static CK_FUNCTION_LIST *module;
static CK_SLOT_ID slot;
static CK_SESSION_HANDLE session;

static void check(CK_RV rv, const char *what)
{
    if (rv != CKR_OK) {
        fprintf(stderr, "%s: CKR %#lx\n", what, rv);
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static double spent(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void find_slot(const char *label)
{
    CK_SLOT_ID slots[SLOTS_MOST];
    CK_ULONG count = SLOTS_MOST;
    CK_TOKEN_INFO info;
    char padded[sizeof info.label + 1];
    snprintf(padded, sizeof padded, "%-32s", label);
    check(module->C_GetSlotList(1, slots, &count), "C_GetSlotList");
    for (CK_ULONG i = 0; i < count; i++) {
        check(module->C_GetTokenInfo(slots[i], &info), "C_GetTokenInfo");
        if (memcmp(info.label, padded, sizeof info.label) == 0) {
            slot = slots[i];
            return;
        }
    }
    fprintf(stderr, "no token %s\n", label);
    exit(1);
}

static CK_SESSION_HANDLE open_session(void)
{
    CK_SESSION_HANDLE opened;
    check(module->C_OpenSession(slot, SERIAL_SESSION | RW_SESSION, NULL, NULL, &opened), "C_OpenSession");
    return opened;
}

/* Begin to use the module; returns the microseconds that C_Login took of it. */
static double start(const char *label)
{
    char *pin = getenv("PIN");
    CK_C_INITIALIZE_ARGS threads = {.flags = CKF_OS_LOCKING_OK};
    check(module->C_Initialize(&threads), "C_Initialize");
    find_slot(label);
    session = open_session();
    double began = now();
    check(module->C_Login(session, USER, (CK_UTF8CHAR_PTR)pin, strlen(pin)), "C_Login");
    return now() - began;
}

static void make(const struct key *key, CK_BBOOL stored)
{
    static CK_BYTE prime256v1[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    CK_ULONG bits = 2048;
    CK_BBOOL yes = 1;
    CK_OBJECT_HANDLE public, private;
    CK_MECHANISM mechanism = {key->makes, NULL, 0};
    CK_ATTRIBUTE bits_of_rsa = {A_MODULUS_BITS, &bits, sizeof bits}, curve = {A_EC_PARAMS, prime256v1, sizeof prime256v1};
    CK_ATTRIBUTE label = {A_LABEL, (void *)(size_t)key->name, strlen(key->name)}, token = {A_TOKEN, &stored, 1};
    CK_ATTRIBUTE of_public[] = {key->makes == EC_KEY_PAIR_GEN ? curve : bits_of_rsa, label, token, {A_VERIFY, &yes, 1}};
    CK_ATTRIBUTE of_private[] = {label, token, {A_SIGN, &yes, 1}};
    check(module->C_GenerateKeyPair(session, &mechanism, of_public, 4, of_private, 3, &public, &private),
          "C_GenerateKeyPair");
}

static CK_OBJECT_HANDLE find(const struct key *key)
{
    CK_ULONG private = PRIVATE_KEY, count = 0;
    CK_OBJECT_HANDLE found = 0;
    CK_ATTRIBUTE wanted[] = {
        {A_CLASS, &private, sizeof private},
        {A_LABEL, (void *)(size_t)key->name, strlen(key->name)},
    };
    check(module->C_FindObjectsInit(session, wanted, 2), "C_FindObjectsInit");
    check(module->C_FindObjects(session, &found, 1, &count), "C_FindObjects");
    check(module->C_FindObjectsFinal(session), "C_FindObjectsFinal");
    check(count == 1 ? CKR_OK : CKR_GENERAL_ERROR, key->name);
    return found;
}

static void sign(CK_SESSION_HANDLE with, const struct key *key, CK_OBJECT_HANDLE object)
{
    CK_BYTE data[32] = {1}, signature[SIGNATURE_MOST];
    CK_ULONG length = sizeof signature;
    CK_MECHANISM mechanism = {key->signs, NULL, 0};
    check(module->C_SignInit(with, &mechanism, object), "C_SignInit");
    check(module->C_Sign(with, data, sizeof data, signature, &length), "C_Sign");
}

static void *keep_signing(void *argument)
{
    struct signing *mine = argument;
    CK_SESSION_HANDLE own = open_session();
    sign(own, mine->key, mine->object);
    pthread_barrier_wait(mine->begin);
    double began = now(), before = began, ends = began + mine->seconds * 1e6;
    while (before < ends) {
        sign(own, mine->key, mine->object);
        double after = now();
        if (mine->count < SAMPLES_MOST)
            mine->samples[mine->count] = after - before;
        mine->count++;
        before = after;
    }
    check(module->C_CloseSession(own), "C_CloseSession");
    return NULL;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void measure(const struct key *key, size_t threads, double seconds)
{
    static struct signing signing[THREADS_MOST];
    pthread_t running[THREADS_MOST];
    pthread_barrier_t begin;
    CK_OBJECT_HANDLE object = find(key);
    size_t count = 0;
    pthread_barrier_init(&begin, NULL, (unsigned)threads + 1);
    for (size_t i = 0; i < threads; i++) {
        double *samples = signing[i].samples != NULL ? signing[i].samples : malloc(SAMPLES_MOST * sizeof *samples);
        signing[i] = (struct signing){&begin, key, object, seconds, samples, 0};
        if (samples == NULL || pthread_create(&running[i], NULL, keep_signing, &signing[i]) != 0)
            exit(1);
    }
    pthread_barrier_wait(&begin);
    double began = now(), used = spent();
    for (size_t i = 0; i < threads; i++) {
        pthread_join(running[i], NULL);
        count += signing[i].count;
    }
    double lasted = now() - began;
    used = spent() - used;
    size_t sampled = signing[0].count < SAMPLES_MOST ? signing[0].count : SAMPLES_MOST;
    qsort(signing[0].samples, sampled, sizeof(double), compare);
    printf("%.1f %.1f %.1f\n", (double)count / lasted * 1e6, signing[0].samples[sampled / 2], used / (double)count);
    pthread_barrier_destroy(&begin);
}

int main(int count, char **words)
{
    char line[256], name[64];
    unsigned threads, stored;
    double seconds;
    if (count != 3 || getenv("PIN") == NULL) {
        fprintf(stderr, "usage: PIN=... driver MODULE TOKEN\n");
        return 2;
    }
    void *library = dlopen(words[1], RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    CK_RV (*list)(CK_FUNCTION_LIST_PTR_PTR);
    *(void **)&list = dlsym(library, "C_GetFunctionList");
    check(list(&module), "C_GetFunctionList");
    bool started = false;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strcmp(line, "first\n") == 0) {
            double began = now(), login = start(words[2]);
            sign(session, &keys[0], find(&keys[0]));
            printf("%.1f %.1f\n", now() - began, login);
            check(module->C_Finalize(NULL), "C_Finalize");
            fflush(stdout);
            continue;
        }
        if (!started)
            start(words[2]);
        started = true;
        if (sscanf(line, "make %u", &stored) == 1) {
            for (size_t i = 0; i < KEYS; i++)
                make(&keys[i], stored != 0);
            printf("%zu\n", KEYS);
        } else if (sscanf(line, "sign %63s %u %lf", name, &threads, &seconds) == 3 && threads <= THREADS_MOST) {
            for (size_t i = 0; i < KEYS; i++)
                if (strcmp(keys[i].name, name) == 0)
                    measure(&keys[i], threads, seconds);
        } else {
            fprintf(stderr, "unknown: %s", line);
            return 2;
        }
        fflush(stdout);
    }
    return 0;
}
