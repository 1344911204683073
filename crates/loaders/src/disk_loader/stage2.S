# First 4 KiB of the network loader on a disk: BIOS, real mode, at 0000:8000, entered behind its first eight bytes with
# the drive in DL, at SI the packet of the read that brought it, and at DI where to go if nothing helps.
# It loads iPXE as a Linux kernel (x86 boot protocol 2.07): set-up code at 1000:0000, the rest from 1 MiB on. A loader
# whose CRC-32 is wrong is not started: it could stand for ever.
# `stage2.rs` holds these bytes, and its test assembles them again.
        .code16
        .org    0
base = 0x8000
buffer = 0x9000                         # 4 KiB on their way
setup = 0x1000                          # segment
arguments = base + 2048                 # iPXE's command line, which is its script
start:  .ascii  "RKSB"
        .byte   1, 0, 0, 0
        jmp     1f
        .org    16
        .long   0                       # bytes of all, filled in
crc:    .long   0                       # CRC-32 of all with zero here, filled in
setup_blocks:
        .word   0                       # of 4 KiB, filled in
high_blocks:
        .word   0
1:      pushw   %dx                     # nothing here changes before it is summed up
        pushw   %si
        pushl   base + (crc - start)
        movl    $0, base + (crc - start)
        orl     $-1, %eax
        movw    $base, %si
        call    sum_on
        popl    base + (crc - start)
        popw    %si
        popw    %dx
        movb    %dl, base + (drive - start)
        movw    %di, base + (failed - start)
        movw    2(%si), %ax
        movw    %ax, base + (packet - start) + 2
        movl    8(%si), %eax
        movl    %eax, base + (packet - start) + 8
        movl    12(%si), %eax
        movl    %eax, base + (packet - start) + 12
        movw    base + (setup_blocks - start), %cx
        movw    $setup, %bx
2:      pushw   %cx
        pushw   %bx
        call    read
        popw    %bx
        movw    %bx, %es
        xorw    %di, %di
        movw    $buffer, %si
        movw    $2048, %cx
        rep movsw
        popw    %cx
        addw    $0x100, %bx
        loop    2b
        movw    base + (high_blocks - start), %cx
3:      pushw   %cx
        call    read
        xorw    %ax, %ax
        movw    %ax, %es
        movw    $(base + (table - start)), %si
        movw    $2048, %cx              # words
        movb    $0x87, %ah              # move to extended memory
        int     $0x15
        jc      give_up
        sti
        addw    $0x1000, base + (to - start)
        adcb    $0, base + (to - start) + 2
        popw    %cx
        loop    3b
        notl    base + (sum - start)
        movl    base + (sum - start), %eax
        cmpl    %eax, base + (crc - start)
        jne     give_up
        movb    0x46c, %al              # the BIOS's clock, 18 ticks a second: machines that were switched on together do not
        andb    $7, %al                 # ask together. The script begins with "set spread 0".
        addb    %al, arguments + 11
        movw    $setup, %ax
        movw    %ax, %ds
        movb    $0xff, 0x210            # a loader without a number
        movl    $arguments, 0x228
        cli
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movw    $0xfff0, %sp
        ljmp    $(setup + 0x20), $0
read:                                   # the next 4 KiB, to the buffer, and into the sum
        movzwl  base + (packet - start) + 2, %eax
        addl    %eax, base + (packet - start) + 8
        adcl    $0, base + (packet - start) + 12
        movb    $5, %cl
4:      pushw   %cx
        movw    $(base + (packet - start)), %si
        movb    $0x42, %ah
        movb    base + (drive - start), %dl
        int     $0x13
        popw    %cx
        jnc     5f
        pushw   %cx
        xorw    %ax, %ax                # reset the drive, and again
        movb    base + (drive - start), %dl
        int     $0x13
        popw    %cx
        decb    %cl
        jnz     4b
give_up:
        jmp     *(base + (failed - start))
5:      movw    $buffer, %si
        movl    base + (sum - start), %eax
sum_on:                                 # CRC-32 of the 4 KiB at SI, begun in EAX
        cld
        movw    $4096, %cx
6:      xorb    (%si), %al
        incw    %si
        movb    $8, %bl
7:      shrl    $1, %eax
        jnc     8f
        xorl    $0xedb88320, %eax
8:      decb    %bl
        jnz     7b
        loop    6b
        movl    %eax, base + (sum - start)
        ret
failed: .word   0
drive:  .byte   0
        .balign 8, 0
sum:    .long   0, 0
packet: .byte   16, 0
        .word   0
        .word   buffer, 0
        .quad   0
table:  .quad   0, 0                    # descriptors of int 15h, 87h
        .word   0xffff, buffer
        .byte   0, 0x93
        .word   0
        .word   0xffff
to:     .word   0
        .byte   0x10, 0x93
        .word   0
        .quad   0, 0
