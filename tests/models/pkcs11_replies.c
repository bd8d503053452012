/*
 * Give the module replies that no gateway sends, and see that it reads nothing and writes nothing that is not its own.
 *
 * An input is: which function is called, what its buffers are like, whether the reply's head is the right one, and the
 * reply. libFuzzer makes inputs by itself (clang -fsanitize=fuzzer); without it `main` makes them from a seed, each a
 * valid reply of its function with some lies. Every buffer has exactly the size that the module is told, so that the
 * sanitizers see a byte too many. Stands in for link.c.
 */
#include "call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char *reply_data;
static size_t reply_size;
static enum { NO_HEAD, ERROR_HEAD, RIGHT_HEAD } head_is;

static const char *reply_of(uint32_t id)
{
#define ROW(name, number, request, reply, major, minor)                                                                \
    if (id == number)                                                                                                  \
        return reply;
    LNH_CALLS(ROW)
#undef ROW
    abort();
}

CK_RV link_start(void)
{
    return CKR_OK;
}

bool link_is_started(void)
{
    return true;
}

CK_RV link_stop(void)
{
    return CKR_OK;
}

void reply_free(struct reply *reply)
{
    free(reply->data);
    *reply = (struct reply){0};
}

CK_RV link_exchange(struct writer *request, struct reply *reply)
{
    struct reader sent;
    struct writer head;
    reader_open(&sent, request->data + FRAME_HEADER, request->length - FRAME_HEADER);
    uint32_t id = read_u32(&sent);
    writer_open(&head);
    if (head_is != NO_HEAD) {
        const char *signature = head_is == ERROR_HEAD ? "u" : reply_of(id);
        write_u32(&head, head_is == ERROR_HEAD ? LNH_ERROR : id);
        write_u32(&head, (uint32_t)strlen(signature));
        write_bytes(&head, signature, strlen(signature));
    }
    reply->length = head.length + reply_size;
    reply->data = malloc(reply->length == 0 ? 1 : reply->length);
    reply->room = reply->length;
    if (reply->data == NULL)
        abort();
    memcpy(reply->data, head.data, head.length);
    if (reply_size > 0)
        memcpy(reply->data + head.length, reply_data, reply_size);
    writer_close(&head);
    return CKR_OK;
}

/* --- the functions, each with memory of exactly the size it is told --- */

#define ROOMS 5
static const CK_ULONG rooms[ROOMS] = {0, 1, 3, 24, 300};

static void *taken(size_t size)
{
    void *memory = malloc(size == 0 ? 1 : size);
    if (memory == NULL)
        abort();
    memset(memory, 0xaa, size == 0 ? 1 : size);
    return memory;
}

#define INNER 3
#define OUTER 8
static const CK_ATTRIBUTE_TYPE types[OUTER] = {0x00, 0x01, 0x03, 0x11, 0x110, 0x40000600, 0x40000211, 0x40000213};

static CK_ATTRIBUTE *template_of(CK_ULONG room)
{
    CK_ATTRIBUTE *template = taken(OUTER * sizeof *template);
    for (int i = 0; i < OUTER; i++) {
        template[i] = (CK_ATTRIBUTE){types[i], room == 0 ? NULL : taken(room), room};
        if (i < 6 || room == 0)
            continue;
        free(template[i].pValue);
        CK_ATTRIBUTE *inner = taken(INNER * sizeof *inner);
        for (int j = 0; j < INNER; j++)
            inner[j] = (CK_ATTRIBUTE){0, taken(room), room};
        template[i].pValue = inner;
        template[i].ulValueLen = INNER * sizeof *inner;
    }
    return template;
}

static void template_free(CK_ATTRIBUTE *template, CK_ULONG room, CK_ATTRIBUTE **inners)
{
    for (int i = 0; i < OUTER; i++) {
        for (int j = 0; i >= 6 && room > 0 && j < INNER; j++)
            free(inners[i - 6][j].pValue);
        free(template[i].pValue);
    }
    free(template);
}

static void attributes(CK_ULONG room)
{
    CK_ATTRIBUTE *template = template_of(room);
    CK_ATTRIBUTE *inners[2] = {template[6].pValue, template[7].pValue};
    C_GetAttributeValue(1, 2, template, OUTER);
    template_free(template, room, inners);
}

static void message(int which, CK_ULONG room)
{
    struct {
        CK_BYTE *iv;
        CK_ULONG iv_len, fixed, generator;
        CK_BYTE *tag;
        CK_ULONG tag_bits;
    } gcm = {taken(12), 12, 0, 1, taken(16), 128};
    struct {
        CK_BYTE *nonce;
        CK_ULONG nonce_len;
        CK_BYTE *tag;
    } chacha = {taken(12), 12, taken(16)};
    void *parameter = which % 2 == 0 ? (void *)&gcm : (void *)&chacha;
    CK_ULONG length = which % 2 == 0 ? sizeof gcm : sizeof chacha;
    CK_BYTE *result = room == 0 ? NULL : taken(room);
    CK_ULONG result_len = room;
    if (which < 2)
        C_EncryptMessage(1, parameter, length, NULL, 0, NULL, 0, result, &result_len);
    else
        C_EncryptMessageNext(1, parameter, length, NULL, 0, result, &result_len, 1);
    C_EncryptMessageBegin(1, parameter, length, NULL, 0);
    free(result);
    free(gcm.iv);
    free(gcm.tag);
    free(chacha.nonce);
    free(chacha.tag);
}

static CK_MECHANISM mechanism = {0x1041, NULL, 0};

static void run(unsigned function, CK_ULONG room)
{
    CK_BYTE *bytes = room == 0 ? NULL : taken(room);
    CK_ULONG *numbers = room == 0 ? NULL : taken(room * sizeof(CK_ULONG));
    CK_ULONG length = room, first, second;
    CK_INFO info;
    CK_SLOT_INFO slot;
    CK_TOKEN_INFO token;
    CK_MECHANISM_INFO about;
    CK_SESSION_INFO session;
    switch (function) {
    case 0:
        C_GetInfo(&info);
        break;
    case 1:
        C_GetSlotInfo(1, &slot);
        break;
    case 2:
        C_GetTokenInfo(1, &token);
        break;
    case 3:
        C_GetSlotList(1, numbers, &length);
        break;
    case 4:
        C_GetMechanismList(1, numbers, &length);
        break;
    case 5:
        C_GetMechanismInfo(1, 2, &about);
        break;
    case 6:
        C_GetSessionInfo(1, &session);
        break;
    case 7:
        C_FindObjects(1, numbers, room, &length);
        break;
    case 8:
        C_Sign(1, NULL, 0, bytes, &length);
        break;
    case 9:
        C_DigestFinal(1, bytes, &length);
        break;
    case 10:
        C_GenerateRandom(1, bytes, length);
        break;
    case 11:
        C_GenerateKeyPair(1, &mechanism, NULL, 0, NULL, 0, &first, &second);
        break;
    case 12:
        C_EncapsulateKey(1, &mechanism, 2, NULL, 0, bytes, &length, &first);
        break;
    case 13:
        C_WrapKey(1, &mechanism, 2, 3, bytes, &length);
        break;
    case 14:
        C_OpenSession(1, 4, NULL, NULL, &first);
        break;
    case 15:
        C_WaitForSlotEvent(1, &first, NULL);
        break;
    case 16:
        C_SignMessageNext(1, NULL, 0, NULL, 0, bytes, room % 2 == 0 ? NULL : &length);
        break;
    case 17:
    case 18:
    case 19:
    case 20:
        message((int)function - 17, room);
        break;
    default:
        attributes(room);
        break;
    }
    free(bytes);
    free(numbers);
}

#define FUNCTIONS 24 /* the last of them read attributes */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    head_is = data[2] % 8 < RIGHT_HEAD ? data[2] % 8 : RIGHT_HEAD;
    reply_data = data + 3;
    reply_size = size - 3;
    run(data[0] % FUNCTIONS, rooms[data[1] % ROOMS]);
    return 0;
}

#ifndef LIBFUZZER

/* --- inputs from a seed --- */

static uint64_t state;

static uint64_t drawn(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static unsigned below(unsigned bound)
{
    return (unsigned)((drawn() >> 20) % bound);
}

static int lies(void)
{
    return below(20) == 0;
}

static uint32_t odd(void)
{
    static const uint32_t values[] = {0, 1, 2, 7, 8, 24, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0x20000000};
    return below(4) == 0 ? (uint32_t)drawn() : values[below(sizeof values / sizeof values[0])];
}

static void write_some(struct writer *out, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        write_u8(out, (uint8_t)drawn());
}

/* Write a length, true or not, and that many bytes. */
static void write_run(struct writer *out, uint32_t length)
{
    write_u32(out, lies() ? odd() : length);
    write_some(out, length);
}

static void write_attributes(struct writer *out, int depth);

static void write_attribute(struct writer *out, CK_ATTRIBUTE_TYPE type, int depth)
{
    static const uint32_t lengths[] = {0, 1, 2, 3, 8, 24, 25, 300};
    uint32_t length = lengths[below(8)], count = below(4);
    write_u32(out, lies() ? odd() : (uint32_t)type);
    write_u8(out, below(8) != 0);
    switch (type) {
    case 0x00:
        write_u32(out, lies() ? odd() : 8);
        write_some(out, 8);
        break;
    case 0x01:
        write_u32(out, lies() ? odd() : 1);
        write_some(out, 1);
        break;
    case 0x40000600:
        write_u32(out, lies() ? odd() : count * 8);
        write_u32(out, lies() ? odd() : count);
        write_some(out, count * 8);
        break;
    case 0x40000211:
    case 0x40000213:
        count = depth < 6 ? INNER : 0;
        write_u32(out, lies() ? odd() : count * 24);
        write_attributes(out, depth + 1);
        break;
    default:
        write_u32(out, lies() ? odd() : length);
        write_run(out, length);
        break;
    }
}

static void write_attributes(struct writer *out, int depth)
{
    uint32_t count = depth == 0 ? OUTER : depth < 7 ? INNER : 0;
    write_u32(out, lies() ? odd() : count);
    for (uint32_t i = 0; i < count; i++)
        write_attribute(out, depth == 0 ? types[i] : below(depth > 1 ? 2 : 4) == 0 ? types[6] : types[below(6)], depth);
}

static void write_message(struct writer *out, int which)
{
    write_u8(out, lies() ? (uint8_t)drawn() : (uint8_t)(1 + which % 2));
    write_run(out, 12);
    for (int i = 0; i < 2 && which % 2 == 0; i++)
        write_u64(out, drawn());
    write_run(out, 16);
}

static void write_reply(struct writer *out, unsigned function)
{
    static const char *const replies[FUNCTIONS] = {"vsusv", "ssuvv", "ssssuuuuuuuuuuuvvs", "au", "au", "uuu", "uuuu",
                                                   "au",    "ay",    "ay", "ay", "uu", "ayu", "ay", "u", "u", "ay",
                                                   "ayP",   "ayP",   "ayP", "ayP"};
    static const uint32_t texts[3][5] = {{32, 32}, {64, 32}, {32, 32, 16, 16, 16}};
    const char *fields = replies[function] == NULL ? "Au" : replies[function];
    int text = 0;
    for (; *fields != '\0'; fields++) {
        uint32_t count = below(6) == 0 ? 300 : below(26);
        switch (*fields) {
        case 'v':
            write_some(out, 2);
            break;
        case 's':
            write_run(out, texts[function][text++ % 5]);
            break;
        case 'a':
            write_u8(out, below(6) != 0);
            write_u32(out, lies() ? odd() : count);
            write_some(out, fields[1] == 'u' ? count * 8 : count);
            fields++;
            break;
        case 'P':
            write_message(out, (int)function - 17);
            break;
        case 'A':
            write_attributes(out, 0);
            break;
        default:
            write_u64(out, below(3) == 0 ? 0 : drawn());
            break;
        }
    }
}

int main(int argc, char **argv)
{
    unsigned long inputs = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    state = (argc > 2 ? strtoul(argv[2], NULL, 10) : 1) * 2654435761U + 88172645463325252U;
    for (unsigned long i = 0; i < inputs; i++) {
        struct writer out;
        unsigned function = below(FUNCTIONS);
        writer_open(&out);
        write_u8(&out, (uint8_t)function);
        write_u8(&out, (uint8_t)below(ROOMS));
        write_u8(&out, (uint8_t)(below(20) == 0 ? below(2) : RIGHT_HEAD));
        if (below(10) == 0)
            write_some(&out, below(200));
        else
            write_reply(&out, function);
        for (unsigned changes = below(3) == 0 ? 1 + below(4) : 0; changes > 0; changes--)
            out.data[2 + below((unsigned)out.length - 2)] = (unsigned char)drawn();
        size_t length = below(8) == 0 ? below((unsigned)out.length + 1) : out.length;
        unsigned char *exact = taken(length);
        memcpy(exact, out.data, length);
        LLVMFuzzerTestOneInput(exact, length);
        free(exact);
        writer_close(&out);
    }
    printf("%lu inputs\n", inputs);
    return 0;
}

#endif
