#include "http/server/hello.h"

enum { CHANGE_CIPHER_SPEC = 20, HANDSHAKE = 22, CLIENT_HELLO = 1 };

static size_t skip(struct str *bytes, size_t n)
{
        n = MIN_OF(n, bytes->n);
        bytes->p += n;
        bytes->n -= n;
        return n;
}

static void fill(uint8_t *into, uint8_t *n, size_t most, struct str *bytes)
{
        size_t take = MIN_OF(most - *n, bytes->n);

        memcpy(into + *n, bytes->p, take);
        *n = (uint8_t)(*n + skip(bytes, take));
}

/* The head of a record is whole. */
static void begin_record(struct hello *h, bool older)
{
        h->record = (uint16_t)(h->head[3] << 8 | h->head[4]);
        h->head_n = 0;
        h->over = h->head[0] != HANDSHAKE && (h->head[0] != CHANGE_CIPHER_SPEC || older);
}

/* Of a record of the handshake; a message may lie in several, its head, too. */
static void take_message(struct hello *h, struct str *bytes)
{
        struct str part = { bytes->p, MIN_OF(bytes->n, (size_t)h->record) };
        size_t all = part.n;

        if (h->rest)
                h->rest -= (uint32_t)skip(&part, h->rest);
        else
                fill(h->message, &h->message_n, sizeof(h->message), &part);
        h->record = (uint16_t)(h->record - skip(bytes, all - part.n));
        if (h->message_n < sizeof(h->message))
                return;
        h->message_n = 0;
        h->over = h->message[0] != CLIENT_HELLO;
        h->rest = (uint32_t)(h->message[1] << 16 | h->message[2] << 8 | h->message[3]);
}

bool hello_passes(struct hello *h, struct str bytes, bool older)
{
        while (bytes.n && !h->over) {
                if (!h->record) {
                        fill(h->head, &h->head_n, sizeof(h->head), &bytes);
                        if (h->head_n == sizeof(h->head))
                                begin_record(h, older);
                } else if (h->head[0] == HANDSHAKE) {
                        take_message(h, &bytes);
                        if (!h->over && h->rest > HELLO_MOST)
                                return false;
                } else
                        h->record = (uint16_t)(h->record - skip(&bytes, h->record));
        }
        return true;
}
