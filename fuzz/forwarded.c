/* X-Forwarded-For as anyone may write it: the walk ends at an address, which prints as one that parses to
 * itself. */
#include <stdio.h>

#include "http/wire/codec.h"
#include "http/server/forwarded.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct network trusted[] = { { .address = { [10] = 0xff, 0xff, 10 }, .bits = 104 },
                                          { .address = { 0xfd }, .bits = 8 } };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        BUF_AT_END struct buf head = BUF_INIT((size_t)1 << 20), text = BUF_INIT(100);
        uint8_t address[16] = { [10] = 0xff, 0xff, 10, 0, 0, 1 }, again[16];
        struct http_message m = { 0 };
        struct str rest = { (const char *)data, size };

        while (rest.n) {
                struct str line = str_cut(&rest, '\n');

                if (line.n && memchr(line.p, 0, line.n))
                        return 0;
                buf_add(&head, "X-Forwarded-For", 16);
                buf_str(&head, line);
                buf_char(&head, 0);
        }
        m.head = head;
        forwarded_client(&m, trusted, COUNT_OF(trusted), address);
        (void)forwarded_https(&m);
        address_format(&text, address);
        if (!address_parse(buf_view(&text), again) || memcmp(address, again, sizeof(again)) != 0) {
                (void)fprintf(stderr, "\"%s\" does not parse to itself\n", text.p);
                abort();
        }
        return 0;
}
