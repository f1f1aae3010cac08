module hoplab.local/image/initrd

go 1.26
