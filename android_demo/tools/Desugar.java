import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import java.util.zip.ZipOutputStream;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.Handle;
import org.objectweb.asm.Opcodes;
import org.objectweb.asm.Type;
import org.objectweb.asm.commons.GeneratorAdapter;
import org.objectweb.asm.commons.Method;
import org.objectweb.asm.tree.AbstractInsnNode;
import org.objectweb.asm.tree.ClassNode;
import org.objectweb.asm.tree.InvokeDynamicInsnNode;
import org.objectweb.asm.tree.MethodInsnNode;
import org.objectweb.asm.tree.MethodNode;

/**
 * Makes classes of lambdas, because Android has no LambdaMetafactory and dx translates none.
 *
 * java -cp 'build/jvm/dex/*' tools/Desugar.java IN.jar OUT.jar
 *
 * Each invokedynamic of LambdaMetafactory becomes a call of `make` of a class of its own. That class calls back a static method in
 * the class that had the lambda, since only that one may call what is private there. Any other invokedynamic ends the run.
 */
public final class Desugar {
    private static final int SYNTHETIC = Opcodes.ACC_STATIC | Opcodes.ACC_SYNTHETIC;
    private static final int SERIALIZABLE = 1, MARKERS = 2, BRIDGES = 4;

    private final ZipOutputStream out;
    private int made;

    private Desugar(ZipOutputStream out) {
        this.out = out;
    }

    public static void main(String[] given) throws Exception {
        try (ZipFile jar = new ZipFile(given[0]); OutputStream file = Files.newOutputStream(Path.of(given[1]));
                ZipOutputStream out = new ZipOutputStream(file)) {
            Desugar desugar = new Desugar(out);
            for (ZipEntry entry : (Iterable<ZipEntry>) jar.stream().map(ZipEntry.class::cast)::iterator) {
                if (!entry.getName().endsWith(".class")) continue;
                try (InputStream stream = jar.getInputStream(entry)) {
                    desugar.rewrite(stream.readAllBytes());
                }
            }
            System.out.println(desugar.made + " lambdas became classes");
        }
    }

    private void rewrite(byte[] data) throws Exception {
        ClassNode owner = new ClassNode();
        new ClassReader(data).accept(owner, 0);
        List<MethodNode> calls = new ArrayList<>();
        // Lambdas are never written out by this app, so nothing reads them in again.
        owner.methods.removeIf(method -> method.name.equals("$deserializeLambda$"));
        for (MethodNode method : owner.methods) {
            for (AbstractInsnNode instruction : method.instructions.toArray()) {
                if (!(instruction instanceof InvokeDynamicInsnNode lambda)) continue;
                if (!lambda.bsm.getOwner().equals("java/lang/invoke/LambdaMetafactory")) {
                    throw new IllegalStateException(owner.name + "." + method.name + ": invokedynamic of " + lambda.bsm);
                }
                method.instructions.set(lambda, classFor(lambda, owner, calls));
            }
        }
        owner.methods.addAll(calls);
        ClassWriter writer = new ClassWriter(0);
        owner.accept(writer);
        write(owner.name, writer.toByteArray());
    }

    private void write(String name, byte[] data) throws Exception {
        out.putNextEntry(new ZipEntry(name + ".class"));
        out.write(data);
        out.closeEntry();
    }

    /** Write the lambda's class, add what it calls to `calls`, and give the call that makes an object of it. */
    private MethodInsnNode classFor(InvokeDynamicInsnNode lambda, ClassNode owner, List<MethodNode> calls) throws Exception {
        Type erased = (Type) lambda.bsmArgs[0];
        Handle target = (Handle) lambda.bsmArgs[1];
        Type real = (Type) lambda.bsmArgs[2];
        Type[] captured = Type.getArgumentTypes(lambda.desc);
        boolean inInterface = (owner.access & Opcodes.ACC_INTERFACE) != 0;
        Method call = new Method("lambda$call$" + calls.size(), real.getReturnType(), joined(captured, real.getArgumentTypes()));
        calls.add(caller(call, target, inInterface));

        String name = owner.name + "$$Lambda$" + calls.size();
        Type type = Type.getObjectType(name);
        Set<String> interfaces = new LinkedHashSet<>(List.of(Type.getReturnType(lambda.desc).getInternalName()));
        Set<String> shapes = new LinkedHashSet<>(List.of(erased.getDescriptor()));
        extras(lambda.bsmArgs, interfaces, shapes);
        ClassWriter writer = new ClassWriter(ClassWriter.COMPUTE_MAXS);
        int access = Opcodes.ACC_FINAL | Opcodes.ACC_SYNTHETIC | Opcodes.ACC_SUPER;
        writer.visit(Opcodes.V1_8, access, name, null, "java/lang/Object", interfaces.toArray(String[]::new));
        for (int place = 0; place < captured.length; place++) {
            writer.visitField(Opcodes.ACC_PRIVATE | Opcodes.ACC_FINAL, "f" + place, captured[place].getDescriptor(), null, null);
        }
        constructor(writer, type, captured);
        Method make = new Method("make", Type.getReturnType(lambda.desc), captured);
        maker(writer, type, make);
        for (String shape : shapes) {
            GeneratorAdapter code = method(writer, Opcodes.ACC_PUBLIC, new Method(lambda.name, shape));
            for (int place = 0; place < captured.length; place++) {
                code.loadThis();
                code.getField(type, "f" + place, captured[place]);
            }
            Type[] from = Type.getArgumentTypes(shape), to = real.getArgumentTypes();
            for (int place = 0; place < from.length; place++) {
                code.loadArg(place);
                adapt(code, from[place], to[place]);
            }
            code.visitMethodInsn(Opcodes.INVOKESTATIC, owner.name, call.getName(), call.getDescriptor(), inInterface);
            adapt(code, real.getReturnType(), Type.getReturnType(shape));
            code.returnValue();
            code.endMethod();
        }
        write(name, writer.toByteArray());
        made++;
        return new MethodInsnNode(Opcodes.INVOKESTATIC, name, make.getName(), make.getDescriptor(), false);
    }

    /** What altMetafactory is told beyond the three types: flags, then counted markers, then counted bridges. */
    private static void extras(Object[] given, Set<String> interfaces, Set<String> shapes) {
        if (given.length == 3) return;
        int flags = (Integer) given[3], place = 4;
        if ((flags & SERIALIZABLE) != 0) interfaces.add("java/io/Serializable");
        if ((flags & MARKERS) != 0) {
            for (int left = (Integer) given[place++]; left > 0; left--) interfaces.add(((Type) given[place++]).getInternalName());
        }
        if ((flags & BRIDGES) != 0) {
            for (int left = (Integer) given[place++]; left > 0; left--) shapes.add(((Type) given[place++]).getDescriptor());
        }
    }

    /** A static method beside the lambda that calls what the lambda stands for. */
    private static MethodNode caller(Method call, Handle target, boolean inInterface) {
        int access = SYNTHETIC | (inInterface ? Opcodes.ACC_PUBLIC : 0);
        MethodNode node = new MethodNode(access, call.getName(), call.getDescriptor(), null, null);
        GeneratorAdapter code = new GeneratorAdapter(node, access, call.getName(), call.getDescriptor());
        Type owner = Type.getObjectType(target.getOwner());
        boolean makes = target.getTag() == Opcodes.H_NEWINVOKESPECIAL, isStatic = target.getTag() == Opcodes.H_INVOKESTATIC;
        Type[] wanted = Type.getArgumentTypes(target.getDesc());
        if (!makes && !isStatic) wanted = joined(new Type[] {owner}, wanted);
        if (makes) {
            code.newInstance(owner);
            code.dup();
        }
        for (int place = 0; place < wanted.length; place++) {
            code.loadArg(place);
            adapt(code, call.getArgumentTypes()[place], wanted[place]);
        }
        int opcode = switch (target.getTag()) {
            case Opcodes.H_INVOKESTATIC -> Opcodes.INVOKESTATIC;
            case Opcodes.H_INVOKEINTERFACE -> Opcodes.INVOKEINTERFACE;
            case Opcodes.H_INVOKEVIRTUAL -> Opcodes.INVOKEVIRTUAL;
            default -> Opcodes.INVOKESPECIAL;
        };
        code.visitMethodInsn(opcode, target.getOwner(), target.getName(), target.getDesc(), target.isInterface());
        adapt(code, makes ? owner : Type.getReturnType(target.getDesc()), call.getReturnType());
        code.returnValue();
        // Words of the frame: every argument may be on the stack twice over, as a box and what it is made of.
        node.maxLocals = Arrays.stream(call.getArgumentTypes()).mapToInt(Type::getSize).sum();
        node.maxStack = node.maxLocals + 6;
        return node;
    }

    private static void constructor(ClassWriter writer, Type type, Type[] captured) {
        GeneratorAdapter code = method(writer, 0, new Method("<init>", Type.VOID_TYPE, captured));
        code.loadThis();
        code.invokeConstructor(Type.getType(Object.class), new Method("<init>", "()V"));
        for (int place = 0; place < captured.length; place++) {
            code.loadThis();
            code.loadArg(place);
            code.putField(type, "f" + place, captured[place]);
        }
        code.returnValue();
        code.endMethod();
    }

    private static void maker(ClassWriter writer, Type type, Method make) {
        GeneratorAdapter code = method(writer, SYNTHETIC, make);
        code.newInstance(type);
        code.dup();
        code.loadArgs();
        code.invokeConstructor(type, new Method("<init>", Type.VOID_TYPE, make.getArgumentTypes()));
        code.returnValue();
        code.endMethod();
    }

    private static GeneratorAdapter method(ClassWriter writer, int access, Method method) {
        return new GeneratorAdapter(access, method, null, null, writer);
    }

    /** Turn the value on the stack into another type as LambdaMetafactory does: cast, box, unbox, widen, drop. */
    private static void adapt(GeneratorAdapter code, Type from, Type to) {
        boolean fromObject = from.getSort() >= Type.ARRAY, toObject = to.getSort() >= Type.ARRAY;
        if (from.equals(to)) return;
        if (to == Type.VOID_TYPE) {
            if (from.getSize() == 2) code.pop2(); else code.pop();
        } else if (fromObject && toObject) {
            code.checkCast(to);
        } else if (fromObject) {
            code.unbox(to);
        } else if (toObject) {
            code.valueOf(from);
        } else {
            code.cast(from, to);
        }
    }

    private static Type[] joined(Type[] first, Type[] second) {
        Type[] all = Arrays.copyOf(first, first.length + second.length);
        System.arraycopy(second, 0, all, first.length, second.length);
        return all;
    }
}
