/* A curl multi handle on our loop: sockets, timeouts and finished transfers. Owned by its user; loop's
 * thread. If a socket can't be watched, only its transfer fails. If the multi handle itself fails, the
 * process ends, since curl never recovers from that. */
#pragma once

#include <curl/curl.h>

#include "base/loop.h"

struct http_multi;

/* done is called for each finished transfer, from the loop and never during a call of the user's. */
int http_multi_new(struct http_multi **, struct loop *, void (*done)(void *cookie, CURL *easy, CURLcode),
                   void *cookie, struct error *) MUST_CHECK;
struct http_multi *http_multi_free(struct http_multi *); /* free the easy handles first; NULL is fine */
int http_multi_add(struct http_multi *, CURL *easy, struct error *) MUST_CHECK;
void http_multi_remove(struct http_multi *, CURL *easy);
CURLM *http_multi_handle(struct http_multi *);
