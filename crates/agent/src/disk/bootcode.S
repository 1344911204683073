# The boot sector's code for BIOS: real mode, loaded at 0000:7c00 with the drive's number in DL.
# `bootcode.rs` holds these bytes, and its test assembles them again.
        .code16
        .org    0
base = 0x7c00
block = 0x8000                          # where the loader's first 4 KiB go
base_memory = 0x413                     # KiB of base memory, BIOS data area
signature = 0x42534b52                  # "RKSB"
start:
        ljmp    $0, $(base + (1f - start))      # some firmware jumps to 07c0:0000
1:      cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %ss
        movw    $base, %sp
        cld
        testb   %dl, %dl                # some firmware leaves something else in DL
        js      2f
        movb    $0x80, %dl
2:      movb    %dl, base + (drive - start)
# The hooks stay in 1 KiB at the end of base memory. Firmware that tries its devices again without a reset finds them there.
        movw    0x18 * 4 + 2, %es
        cmpl    $signature, %es:(mark - hooks)
        je      3f
        decw    base_memory
        movw    base_memory, %ax
        movw    %ax, base + (kilobytes - start)
        shlw    $6, %ax
        movw    %ax, %es
        movl    0x18 * 4, %eax
        movl    %eax, base + (old18 - start)
        movl    0x1c * 4, %eax
        movl    %eax, base + (old1c - start)
        xorw    %di, %di
        movw    $(base + (hooks - start)), %si
        movw    $(end - hooks), %cx
        rep movsb
        movw    $(int18 - hooks), 0x18 * 4
        movw    %es, 0x18 * 4 + 2
        movw    $(int1c - hooks), 0x1c * 4
        movw    %es, 0x1c * 4 + 2
3:      sti
        movw    $(base + (message - start)), %si
4:      lodsb
        testb   %al, %al
        jz      5f
        movb    $0x0e, %ah              # teletype output
        movw    $0x0007, %bx
        int     $0x10
        jmp     4b
5:      movb    $0x41, %ah              # are there extended reads?
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
        cmpl    $signature, block
        jne     none
        movw    $(base + (packet - start)), %si
        movw    $(base + (none - start)), %di
        movb    base + (drive - start), %dl
        ljmp    $0, $(block + 8)
none:   int     $0x18                   # this device did not boot (BIOS Boot Specification 1.01, 6.7)
6:      hlt                             # some firmware comes back
        jmp     6b

hooks:
int18:                                  # a device did not boot: the next one has its turn, and the clock runs
        movw    $5461, %cs:(ticks - hooks)      # five minutes
        .byte   0x2e, 0xff, 0x2e        # ljmp *%cs:(old18 - hooks)
        .word   old18 - hooks
int1c:                                  # 18.2 times a second
        cmpw    $0, %cs:(ticks - hooks)
        je      7f
        pushw   %ax
        pushw   %ds
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    base_memory, %ax
        cmpw    %ax, %cs:(kilobytes - hooks)
        popw    %ds
        popw    %ax
        je      8f
        addb    $16, %cs:(slow - hooks) # something is resident, as PXE is: it has sixteen times as long
        jnz     7f
8:      decw    %cs:(ticks - hooks)
        jz      9f
7:      .byte   0x2e, 0xff, 0x2e        # ljmp *%cs:(old1c - hooks)
        .word   old1c - hooks
9:      movb    $0xfe, %al              # keyboard controller: reset
        outb    %al, $0x64
        movw    $0xcf9, %dx             # the chip set's reset register
        movb    $0x06, %al
        outb    %al, %dx
        ljmp    $0xffff, $0
mark:   .ascii  "RKSB"
old18:  .long   0
old1c:  .long   0
ticks:  .word   0                       # until the reset; 0 = the clock stands
kilobytes:
        .word   0                       # base memory with nothing resident but this
slow:   .byte   0
end:
        .balign 2, 0
packet: .byte   16, 0                   # int 13h, 42h: blocks, to offset and segment, from LBA
        .word   0                       # set for each disk: blocks in 4 KiB
        .word   block, 0
        .quad   0                       # set for each disk: where the loader begins
drive:  .byte   0
message:
        .asciz  "rackstrap: this disk asks the network.\r\n"
