"""Which way frames take: redirects, detours, loops, and who claims an address."""
