/* Which hosts are reached without the proxy. Any thread. */
#pragma once

#include "base/base.h"

/* list: comma separated host, .domain, ADDRESS, ADDRESS/BITS or "*"; a host includes its subdomains. */
bool http_no_proxy(struct str list, struct str host);
