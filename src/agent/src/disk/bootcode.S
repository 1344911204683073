# The boot sector's code for BIOS: real mode, loaded at 0000:7c00 with the drive's number in DL.
# `bootcode.rs` holds these bytes, and its test assembles them again.
        .code16
        .org    0
base = 0x7c00
block = 0x8000                          # where the loader's first 4 KiB go
start:
        ljmp    $0, $(base + (1f - start))      # some firmware jumps to 07c0:0000
1:      cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $base, %sp
        sti
        cld
        testb   %dl, %dl                # some firmware leaves something else in DL
        js      2f
        movb    $0x80, %dl
2:      movb    %dl, base + (drive - start)
        movw    $(base + (message - start)), %si
3:      lodsb
        testb   %al, %al
        jz      4f
        movb    $0x0e, %ah              # teletype output
        movw    $0x0007, %bx
        int     $0x10
        jmp     3b
4:      movb    $0x41, %ah              # are there extended reads?
        movw    $0x55aa, %bx
        movb    base + (drive - start), %dl
        int     $0x13
        jc      none
        cmpw    $0xaa55, %bx
        jne     none
        movw    $(base + (packet - start)), %si
        movb    $0x42, %ah              # extended read
        movb    base + (drive - start), %dl
        int     $0x13
        jc      none
        cmpl    $0x42534b52, block      # "RKSB"
        jne     none
        movw    $(base + (packet - start)), %si
        movw    $(base + (none - start)), %di
        movb    base + (drive - start), %dl
        ljmp    $0, $(block + 8)
# No loader. The next boot device has its turn; a timer resets the machine if nothing came of that, as
# `int 18h` never comes back where the firmware ends at "No bootable device".
none:   cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    $base, %sp
        decw    0x413                   # 1 KiB at the end of base memory, for the timer
        movw    0x413, %ax
        shlw    $6, %ax
        movw    %ax, %es
        xorw    %di, %di
        movw    $(base + (timer - start)), %si
        movw    $(end - timer), %cx
        movl    0x1c * 4, %edx          # the timer's old owner
        movl    %edx, base + (old - start)
        rep movsb
        movw    $0, 0x1c * 4
        movw    %es, 0x1c * 4 + 2
        sti
        int     $0x18                   # this device did not boot (BIOS Boot Specification 1.01, 6.7)
5:      hlt                             # some firmware comes back
        jmp     5b
timer:                                  # int 1ch, 18.2 times a second
        decw    %cs:(ticks - timer)
        jz      6f
        .byte   0x2e, 0xff, 0x2e        # ljmp *%cs:(old - timer)
        .word   old - timer
6:      movb    $0xfe, %al              # keyboard controller: reset
        outb    %al, $0x64
        movw    $0xcf9, %dx             # the chip set's reset register
        movb    $0x06, %al
        outb    %al, %dx
        ljmp    $0xffff, $0
old:    .long   0
ticks:  .word   5461                    # five minutes
end:
        .balign 2
packet: .byte   16, 0                   # int 13h, 42h: blocks, to offset and segment, from LBA
        .word   0                       # set for each disk: blocks in 4 KiB
        .word   block, 0
        .quad   0                       # set for each disk: where the loader begins
drive:  .byte   0
message:
        .asciz  "rackstrap: this disk asks the network.\r\n"
