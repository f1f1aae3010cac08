module hoplab.local/image/echo

go 1.26
