/* SMN's messages from anyone: taken apart, and what is signed put together again. */
#include "source/smn/notification.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct notification n;
        const char *why;
        struct str region, project, name;

        if (size > NOTIFICATION_BODY_MOST ||
            notification_parse((struct str){ (const char *)data, size }, &n, &why) < 0)
                return 0;
        BUF_AT_END struct buf text = BUF_INIT(2 * NOTIFICATION_BODY_MOST), signature = BUF_INIT(4096);

        notification_signed(&n, &text);
        /* What is signed ends in a line feed, and the last line that says message_id is the name of the id.
         */
        if (text.failed || !text.n || text.p[text.n - 1] != '\n' || n.subject.n > 512)
                abort();
        const char *id = NULL;
        for (const char *at = text.p; (at = strstr(at, "message_id\n")); at++)
                if (at == text.p || at[-1] == '\n')
                        id = at;
        if (!id || strncmp(id + 11, n.message_id.p, n.message_id.n) != 0)
                abort();
        (void)notification_urn(n.topic_urn, &region, &project, &name);
        (void)!buf_unbase64(&signature, n.signature);
        notification_done(&n);
        return 0;
}
