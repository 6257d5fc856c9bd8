/* Messages of Huawei Cloud's Simple Message Notification as they arrive by HTTPS (SMN user guide, "HTTP/HTTPS
 * Messages" and "Verifying Message Signatures"): taken apart, what was signed, and whether the signature is
 * right. Pure; any thread. */
#pragma once

#include <openssl/evp.h>

#include "base/buf.h"

enum { NOTIFICATION_BODY_MOST = 300 * 1024 };

enum notification_kind { NOTIFICATION_MESSAGE, NOTIFICATION_CONFIRM, NOTIFICATION_UNSUBSCRIBED };
struct notification {
        enum notification_kind kind;
        /* p NULL: absent */
        struct str type, message_id, topic_urn, message, subject, timestamp, subscribe_url, signing_cert_url,
                signature, signature_version;
        usec time; /* timestamp; wall */
        /* what the views borrow from: these members and nothing else, so that it is never larger than the
         * body */
        struct buf text;
};

/* Which kind a type names, in the old or the newer spelling. newer: which one it is; may be NULL. false:
 * neither. */
bool notification_kind_of(struct str type, enum notification_kind *, bool *newer) MUST_CHECK;
/* 0, or -1 with the reason in words; NULL: there is no memory. Copies what it keeps. The caller frees it with
 * notification_done. */
int notification_parse(struct str body, struct notification *, const char **why) MUST_CHECK;
void notification_done(struct notification *); /* a zeroed one is fine */
/* What the signature is made of. */
void notification_signed(const struct notification *, struct buf *);
/* Is it signed by that key (RSA, PKCS #1 v1.5, SHA-256)? 1: yes, 0: no, -1: there is no memory to say. */
int notification_verify(const struct notification *, EVP_PKEY *) MUST_CHECK;
/* The parts of "urn:smn:REGION:PROJECT:NAME". false: it is something else. */
bool notification_urn(struct str urn, struct str *region, struct str *project, struct str *name) MUST_CHECK;
